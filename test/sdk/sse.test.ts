import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeSse, type SseEvent, SseSplitter } from "../../plugin-sdk/src/sse.ts";
import { Random, randomChunks } from "./random.ts";

interface Split {
  readonly events: SseEvent[];
  readonly rest: Buffer | null;
}

function split(chunks: readonly Buffer[], maxEventBytes?: number): Split {
  const splitter = new SseSplitter(maxEventBytes === undefined ? {} : { maxEventBytes });
  const events: SseEvent[] = [];
  const out = (event: SseEvent) => void events.push(event);
  for (const chunk of chunks) splitter.push(chunk, out);
  return { events, rest: splitter.flush(out) };
}

function splitText(text: string): SseEvent[] {
  return split([Buffer.from(text)]).events;
}

function bytesOf({ events, rest }: Split): Buffer {
  return Buffer.concat([...events.map((event) => event.raw), rest ?? Buffer.alloc(0)]);
}

function singleBytes(bytes: Buffer): Buffer[] {
  return Array.from(bytes, (_, at) => bytes.subarray(at, at + 1));
}

interface Dispatched {
  event: string;
  data: string;
  id: string | undefined;
  retry: number | undefined;
}

/** The event stream rules as the standard words them, line after line, for the whole stream at once. */
function referenceParse(bytes: Buffer): Dispatched[] {
  const text = bytes.toString("utf8").replace(/^\uFEFF/, "");
  const lines = text.split(/\r\n|\r|\n/);
  lines.pop(); // a line without an end is never processed
  const dispatched: Dispatched[] = [];
  let block = {
    event: "",
    data: "",
    id: undefined as string | undefined,
    retry: undefined as number | undefined,
  };
  let dataLines = 0;
  for (const line of lines) {
    if (line === "") {
      if (dataLines > 0) {
        dispatched.push({ ...block, event: block.event || "message", data: block.data.slice(0, -1) });
      }
      block = { event: "", data: "", id: undefined, retry: undefined };
      dataLines = 0;
      continue;
    }
    if (line.startsWith(":")) continue;
    const [, field, value] = /^([^:]*)(?:: ?([\s\S]*))?$/.exec(line)!;
    if (field === "event") block.event = value ?? "";
    if (field === "data") {
      block.data += `${value ?? ""}\n`;
      dataLines++;
    }
    if (field === "id" && !(value ?? "").includes("\0")) block.id = value ?? "";
    if (field === "retry" && /^[0-9]+$/.test(value ?? "")) block.retry = Number(value);
  }
  return dispatched;
}

function dispatched(events: readonly SseEvent[]): Dispatched[] {
  return events
    .filter((event) => event.hasData)
    .map(({ event, data, id, retry }) => ({ event, data, id, retry }));
}

test("events leave with their exact bytes and their fields", () => {
  const stream =
    'event: ping\ndata: {"a":1}\n\n: hi\n:there\n\nid:7\nretry: 1500\ndata:x\ndata\ndata:  y\n\n';
  const [ping, comment, last] = splitText(stream);
  assert.equal(ping!.raw.toString(), 'event: ping\ndata: {"a":1}\n\n');
  assert.equal(ping!.event, "ping");
  assert.deepEqual(ping!.json(), { a: 1 });
  assert.equal(ping!.json(), ping!.json());
  assert.equal(ping!.comment, undefined);
  assert.equal(comment!.comment, "hi\nthere");
  assert.equal(comment!.hasData, false);
  assert.equal(comment!.data, "");
  assert.equal(comment!.json(), undefined);
  assert.equal(last!.event, "message");
  assert.equal(last!.data, "x\n\n y");
  assert.equal(last!.id, "7");
  assert.equal(last!.retry, 1500);
  assert.equal(last!.json(), undefined);
  assert.equal(splitText("data: [DONE]\n\n")[0]!.json(), undefined);
});

test("an event within one chunk is a view of it", () => {
  const chunk = Buffer.from("data: a\n\ndata: b\n\n");
  for (const { raw } of split([chunk]).events) assert.equal(raw.buffer, chunk.buffer);
});

test("an unfinished event is not dispatched, and its bytes come back at the end", () => {
  const { events, rest } = split([Buffer.from("data: a\n\ndata: b\n")]);
  assert.equal(events.length, 1);
  assert.equal(rest!.toString(), "data: b\n");
  assert.equal(split([]).rest, null);
});

test("a splitter can be used again after the end", () => {
  const splitter = new SseSplitter();
  const seen: string[] = [];
  for (let round = 0; round < 2; round++) {
    splitter.push(Buffer.from("\uFEFFdata: a\n\nda"), (event) => seen.push(event.data));
    assert.equal(splitter.flush(() => assert.fail())?.toString(), "da");
  }
  assert.deepEqual(seen, ["a", "a"]);
});

test("every line ending ends an event as soon as that is certain", () => {
  const splitter = new SseSplitter();
  const seen: string[] = [];
  const push = (text: string) => splitter.push(Buffer.from(text), (event) => seen.push(event.raw.toString()));
  push("data: lf\n\n");
  assert.deepEqual(seen.splice(0), ["data: lf\n\n"]);
  push("data: cr\r\r");
  assert.deepEqual(seen.splice(0), ["data: cr\r\r"], "a stream of lone CRs must not wait for the next event");
  push("data: crlf\r\n\r");
  assert.deepEqual(seen.splice(0), [], "the LF of the CRLF is still to come");
  push("\n");
  assert.deepEqual(seen.splice(0), ["data: crlf\r\n\r\n"]);
  push("data: mixed\r\n\rdata");
  assert.deepEqual(seen.splice(0), ["data: mixed\r\n\r"]);
  push(": x\n\r");
  assert.equal(
    splitter.flush((event) => seen.push(event.raw.toString())),
    null,
  );
  assert.deepEqual(seen, ["data: x\n\r"], "the end of the stream settles what waited");
});

test("a byte order mark is skipped at the start of the stream and nowhere else", () => {
  const [first, second] = splitText("\uFEFFdata: a\n\n\uFEFFdata: b\n\n");
  assert.equal(first!.data, "a");
  assert.equal(first!.raw.toString(), "\uFEFFdata: a\n\n");
  assert.equal(second!.hasData, false);
});

test("an id with NUL and a retry that is no number are ignored", () => {
  const [event] = splitText("id: 1\nid: a\0b\nretry: 5s\nretry:\ndata: x\n\n");
  assert.equal(event!.id, "1");
  assert.equal(event!.retry, undefined);
});

const pieces = [
  "data",
  "data:",
  "data: ",
  "event: ",
  "id:",
  "retry: 12",
  ":",
  " ",
  "{}",
  "ä€😀",
  "x",
  "\uFEFF",
  "\0",
  "\n",
  "\n",
  "\n\n",
  "\r",
  "\r",
  "\r\r",
  "\r\n",
  "\r\n\r\n",
  "long ".repeat(40),
];

function randomStream(random: Random): Buffer {
  const parts: Buffer[] = random.chance(0.2) ? [Buffer.from("\uFEFF")] : [];
  for (let length = random.below(40); length > 0; length--) {
    parts.push(random.chance(0.03) ? Buffer.of(random.below(256)) : Buffer.from(random.pick(pieces)));
  }
  return Buffer.concat(parts);
}

test("random streams in random chunks: the same bytes, and the events that the standard's rules give", () => {
  for (let seed = 0; seed < 4000; seed++) {
    const random = new Random(seed);
    const bytes = randomStream(random);
    const whole = split([bytes]);
    const parts = split(
      seed % 4 === 0 ? singleBytes(bytes) : randomChunks(random, bytes, 1 + random.below(30)),
    );
    assert.ok(bytesOf(whole).equals(bytes), `seed ${seed}: bytes, whole`);
    assert.ok(bytesOf(parts).equals(bytes), `seed ${seed}: bytes, chunked`);
    const raws = ({ events }: Split) => events.map((event) => event.raw.toString("latin1"));
    assert.deepEqual(raws(parts), raws(whole), `seed ${seed}: event boundaries`);
    assert.deepEqual(dispatched(parts.events), referenceParse(bytes), `seed ${seed}: events`);
  }
});

test("a 10 MB event in small chunks is gathered in linear time and memory", () => {
  const data = "0123456789abcdef".repeat(640 * 1024);
  const bytes = Buffer.from(`data: ${data}\r\n\r\ndata: next\r\n\r\n`);
  const chunks: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += 7) chunks.push(bytes.subarray(at, at + 7));
  const { events, rest } = split(chunks);
  assert.equal(rest, null);
  assert.deepEqual(
    events.map((event) => event.data.length),
    [data.length, 4],
  );
  assert.ok(bytesOf({ events, rest }).equals(bytes));
});

test("an event over the limit passes in pieces without fields, and the stream goes on", () => {
  for (let seed = 0; seed < 500; seed++) {
    const random = new Random(seed);
    const big = `data: ${"x".repeat(20 + random.below(60))}\n\n`;
    const bytes = Buffer.from(`data: a\n\n${big}data: b\n\n${big}`);
    const result = split(randomChunks(random, bytes, 1 + random.below(50)), 24);
    assert.ok(bytesOf(result).equals(bytes), `seed ${seed}`);
    const normal = result.events.filter((event) => !event.oversize);
    const isBig = big.length > 24;
    assert.deepEqual(
      normal.map((event) => event.data),
      isBig ? ["a", "b"] : ["a", big.slice(6, -2), "b", big.slice(6, -2)],
    );
    for (const piece of result.events.filter((event) => event.oversize)) {
      assert.equal(piece.hasData, false);
      assert.equal(piece.data, "");
      assert.throws(() => piece.withData("x"), TypeError);
    }
  }
});

test("what is held back for an event never exceeds the limit", () => {
  const splitter = new SseSplitter({ maxEventBytes: 100 });
  let passed = 0;
  for (let sent = 1; sent <= 1000; sent++) {
    splitter.push(Buffer.from("x"), (event) => {
      passed += event.raw.length;
    });
    assert.ok(sent - passed <= 100);
  }
  assert.equal(
    splitter.flush(() => assert.fail()),
    null,
  );
});

test("new data keeps the framing of an event", () => {
  const cases: [string, string, string][] = [
    ["event: a\r\ndata: x\r\nid: 1\r\n\r\n", "y", "event: a\r\ndata: y\r\nid: 1\r\n\r\n"],
    [": c\ndata:x\n\n", "y\nz", ": c\ndata:y\ndata:z\n\n"],
    ["data:x\n\n", " y", "data:  y\n\n"],
    ["data\n\n", "y", "data: y\n\n"],
    ["data: a\nid: 1\ndata: b\n\n", "y", "id: 1\ndata: y\n\n"],
    ["data: a\nid: 1\ndata:b\n\n", "1\n2\n3", "data: 1\nid: 1\ndata:2\ndata:3\n\n"],
    ["data: a\rdata: b\n\n", "y", "data: y\n\n"],
    ["event: ping\r\n\r\n", "y", "event: ping\r\ndata: y\r\n\r\n"],
    ["\n", "y", "data: y\n\n"],
    ["\uFEFFdata: x\n\n", "y", "\uFEFFdata: y\n\n"],
    ["datax: 1\ndata: x\n\n", "y", "datax: 1\ndata: y\n\n"],
  ];
  for (const [raw, data, expected] of cases) {
    assert.equal(splitText(raw)[0]!.withData(data).toString(), expected);
  }
  const [event] = splitText("data: \ndata: x\n\n");
  assert.equal(event!.withData("\nx"), event!.raw);
  const invalid = Buffer.concat([Buffer.from(": "), Buffer.of(0xff), Buffer.from("\ndata: x\n\n")]);
  assert.ok(split([invalid]).events[0]!.withData("y").subarray(0, 4).equals(invalid.subarray(0, 4)));
});

test("random events with new data read back as that data with all else as before", () => {
  for (let seed = 0; seed < 2000; seed++) {
    const random = new Random(seed);
    for (const [index, event] of split([randomStream(random)]).events.entries()) {
      const data = Array.from({ length: random.below(6) }, () =>
        random.pick(["a", " b", "", "\n", "\n", ": ", "€"]),
      ).join("");
      // Only the first event may begin with a byte order mark, so a later one is read back behind a blank line.
      const again = split([Buffer.from(index === 0 ? "" : "\n"), event.withData(data)]);
      assert.equal(again.rest, null, `seed ${seed}`);
      const { id, retry, event: type } = event;
      assert.deepEqual(dispatched(again.events), [{ event: type, data, id, retry }], `seed ${seed}`);
    }
  }
});

test("encoded events read back as they were meant", () => {
  const text = encodeSse({ comment: "a\nb", event: "e", id: "1", retry: 10, data: "x\r\ny\n" }).toString();
  assert.equal(text, ": a\n: b\nevent: e\nid: 1\nretry: 10\ndata: x\ndata: y\ndata: \n\n");
  assert.equal(encodeSse({ comment: "" }).toString(), ": \n\n");
  const [event] = splitText(encodeSse({ event: "é", data: " {}" }).toString());
  assert.equal(event!.event, "é");
  assert.equal(event!.data, " {}");
});

test("a value that would break out of its field is refused", () => {
  assert.throws(() => encodeSse({ event: "a\nb" }), TypeError);
  assert.throws(() => encodeSse({ id: "a\rb" }), TypeError);
  assert.throws(() => encodeSse({ id: "a\0b" }), TypeError);
  assert.throws(() => encodeSse({ retry: 1.5 }), TypeError);
  assert.throws(() => encodeSse({ retry: -1 }), TypeError);
});

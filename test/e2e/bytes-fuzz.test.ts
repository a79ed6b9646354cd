import assert from "node:assert/strict";
import { it } from "node:test";
import zlib from "node:zlib";
import {
  assertSameBytes,
  chunked,
  endToEnd,
  looking,
  requestBytes,
  startRelay,
  WAYS,
} from "../support/relay.ts";

const SEED = Number(process.env.TOKENMAN_TEST_SEED ?? 20_261_124);
const ROUNDS = 600;
const TIME_MS = 5_000;

/** Numbers that look random and follow from the seed (mulberry32). */
class Dice {
  #state: number;
  constructor(seed: number) {
    this.#state = seed;
  }
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
  chance(share: number): boolean {
    return this.next() < share;
  }
}

const WORDS = [
  "\n",
  "\n\n",
  "\r",
  "\r\n",
  "\r\n\r\n",
  "data:",
  "data: ",
  "event: x",
  ": c",
  "id: 1",
  "{}",
  '"\\u00e9"',
  "\u20ac",
  "\u{1f600}",
  "\ufeff",
  " ",
  "x",
  "[DONE]",
  "\0",
];

function stream(dice: Dice): Buffer {
  const parts: Buffer[] = [];
  for (let count = dice.below(60); count > 0; count--) {
    const kind = dice.below(20);
    if (kind === 0) parts.push(Buffer.alloc(dice.below(70_000), "long "));
    else if (kind === 1) parts.push(Buffer.from([dice.below(256), dice.below(256)]));
    else parts.push(Buffer.from(dice.pick(WORDS)));
  }
  return Buffer.concat(parts);
}

function json(dice: Dice, depth = 0): string {
  const space = dice.pick(["", "", " ", "\n", "\r\n\t"]);
  const scalar = (): string =>
    dice.pick([
      "1.0",
      "-0",
      "1E400",
      "123456789012345678901",
      '"\\ud800"',
      '"a\\/b"',
      "null",
      "true",
      '"\u20ac"',
      '""',
    ]);
  if (depth > 4 || dice.chance(0.3)) return space + scalar() + space;
  const items = Array.from({ length: dice.below(4) }, () => json(dice, depth + 1));
  if (dice.chance(0.5)) return `[${items.join(",")}]`;
  return `{${space}${items.map((item) => `${dice.pick(['"a"', '"a"', '"model"', '"__proto__"', '"messages"'])}${space}:${item}`).join(",")}}`;
}

function fieldLines(dice: Dice): string[] {
  const names = ["X-A", "x-a", "Anthropic-Beta", "Cookie", "x-b", "Accept", "ETag"];
  const values = ["", "1", "a, b;q=0.5", "caf\xe9 \xff", "x".repeat(300), '"quoted, value"', "a\tb"];
  return Array.from({ length: dice.below(8) }, () => `${dice.pick(names)}: ${dice.pick(values)}`);
}

const CODINGS = {
  "": (body: Buffer) => body,
  gzip: (body: Buffer) => zlib.gzipSync(body, { level: 1 }),
  br: (body: Buffer) =>
    zlib.brotliCompressSync(body, { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 1 } }),
  zstd: (body: Buffer) => zlib.zstdCompressSync(body),
} as const;

/** Sizes of 1 byte to 64 KB, small ones more often. */
function sizes(dice: Dice): number[] {
  return Array.from({ length: 1 + dice.below(20) }, () => 1 + dice.below(2 ** dice.below(17)));
}

/** Cuts bytes in at most `most` pieces. */
function cut(bytes: Buffer, dice: Dice, most: number): Buffer[] {
  const at = Array.from({ length: dice.below(most) }, () => dice.below(bytes.length + 1)).sort(
    (a, b) => a - b,
  );
  const bounds = [0, ...at, bytes.length];
  return bounds.slice(1).map((end, index) => bytes.subarray(bounds[index], end));
}

it(`random requests and replies in random pieces arrive as they were sent (seed ${SEED})`, async () => {
  const looks = looking();
  await using relay = await startRelay({ plugins: [looks.plugin], config: looks.config });
  let client = await relay.client();
  const dice = new Dice(SEED);
  const began = performance.now();
  let rounds = 0;
  for (; rounds < ROUNDS && performance.now() - began < TIME_MS; rounds++) {
    const where = `seed ${SEED}, round ${rounds}`;
    const way = dice.pick(WAYS);
    const isStream = dice.chance(0.6);
    const decoded = isStream ? stream(dice) : Buffer.from(json(dice));
    const coding = dice.pick(Object.keys(CODINGS) as (keyof typeof CODINGS)[]);
    const body = CODINGS[coding](decoded);
    const isLength = dice.chance(0.4);
    const isCut = dice.chance(0.1);
    const replyLines = fieldLines(dice);
    const head = [
      `HTTP/1.1 ${dice.pick(["200 OK", "200 ", "400 Bad Request", "529 Site Overloaded"])}`,
      `Content-Type: ${isStream ? "text/event-stream" : "application/json"}`,
      ...(coding === "" ? [] : [`Content-Encoding: ${coding}`]),
      ...replyLines,
      isLength ? `Content-Length: ${body.length + (isCut ? 1 : 0)}` : "Transfer-Encoding: chunked",
    ];
    const framed = isLength ? body : chunked(body, sizes(dice));
    const wire = Buffer.concat([
      Buffer.from(`${head.join("\r\n")}\r\n\r\n`, "latin1"),
      isCut && !isLength ? framed.subarray(0, -5) : framed,
    ]);
    const pieces = cut(wire, dice, 12);
    relay.upstream.next(async (call) => {
      await call.received;
      for (const piece of pieces) await call.write(piece);
      if (isCut) await call.end();
    });

    const requestBody = CODINGS[coding](Buffer.from(json(dice)));
    const lines = [
      "x-api-key: k",
      ...fieldLines(dice),
      ...(coding === "" ? [] : [`Content-Encoding: ${coding}`]),
    ];
    const target = dice.pick(["/v1/messages", "/v1/messages?beta=true", "/v1/messages/batches?x=%2f"]);
    const request = requestBytes({
      target,
      lines: [`X-Tokenman-Project: ${way}`, ...lines],
      body: requestBody,
      ...(dice.chance(0.5) && { chunks: sizes(dice) }),
    });
    client.expect("POST");
    for (const piece of cut(request, dice, 6)) await client.send(piece);
    const reply = await client.reply();

    const arrived = relay.upstream.last();
    assert.equal(arrived.target, target, where);
    assertSameBytes(arrived.body, requestBody, `the request, ${where}`);
    assert.deepEqual(
      endToEnd(arrived.headers),
      lines.map((line) => line.replace(/:\s*/, ": ")),
      where,
    );

    const isDecoded = way === "mapped" && isStream && coding !== "";
    assert.equal(reply.broken, isCut, where);
    assertSameBytes(reply.body, isDecoded ? decoded : body, `the reply, ${way}, ${coding}, ${where}`);
    assert.equal(`${reply.version} ${reply.status} ${reply.reason}`, head[0], where);
    const kept = replyLines.map((line) => line.replace(/:\s*/, ": "));
    const got = reply.headers.flatMap((name, index) =>
      index % 2 === 0 ? [`${name}: ${reply.headers[index + 1]}`] : [],
    );
    assert.deepEqual(
      got.filter((line) => !/^(content-|x-tokenman-|connection:|keep-alive:|transfer-encoding:)/i.test(line)),
      kept,
      where,
    );
    if (way !== "plain") {
      const look = await looks.next();
      assertSameBytes(
        look.bytes,
        isCut && look.truncated ? look.bytes : decoded,
        `the copy, ${way}, ${coding}, ${where}`,
      );
      assert.equal(look.end, isCut ? "upstream-cut" : "complete", where);
    }
    if (isCut) {
      client[Symbol.dispose]();
      client = await relay.client();
    }
  }
  client[Symbol.dispose]();
  assert.ok(rounds >= 50, `only ${rounds} rounds in ${TIME_MS} ms`);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import zlib from "node:zlib";
import {
  chunkBytes,
  FakeClock,
  gate,
  headBytes,
  type Script,
  steps,
  wholeReply,
} from "@tokenman/plugin-sdk/testkit";
import { bench, STOP, summary } from "../support/faulty.ts";
import { bodyText, isWholeChunked, statusOf } from "../support/raw-client.ts";

const SSE = ["Content-Type", "text/event-stream"];
const CHUNKED = headBytes(200, [...SSE, "Transfer-Encoding", "chunked"]);
const DELTA = 'event: content_block_delta\ndata: {"type":"content_block_delta","index":0}\n\n';
const limits = { timeout: 20_000 };

/** Resets after the client has got everything so far: the order of events is certain, and no byte is lost on the way. */
function resetWhen(seen: Promise<unknown>): Script {
  return async (call) => {
    await seen;
    call.reset();
  };
}

test(
  "fault 1: a reset in a chunked stream relays the bytes so far and destroys the client's socket",
  limits,
  async () => {
    await using b = await bench();
    const seen = gate();
    b.upstream.next(steps(CHUNKED, chunkBytes(DELTA), chunkBytes("event: con"), resetWhen(seen.opened)));
    const client = await b.ask();
    await client.until("event: con\r\n");
    seen.open();
    await client.ended;
    assert.ok(client.text.includes(DELTA) && client.text.endsWith("event: con\r\n"), client.text);
    assert.ok(!isWholeChunked(client.text), "a broken stream must not look whole");
    assert.equal(summary(await b.outcomes.settled(1)), "partial 200 TM_UPSTREAM_CUT");
    assert.deepEqual(b.outcomes.all[0]!.attempts, [
      { provider: "anthropic", result: { kind: "reply", status: 200, body: "upstream-cut" } },
    ]);
    assert.equal(b.upstream.requests.length, 1);
  },
);

test(
  "fault 1: bytes and reset in one go: what the proxy got is relayed before the socket is destroyed",
  limits,
  async () => {
    await using b = await bench();
    // FIN in the middle of a chunked body: the bytes are not lost on the way, the break is certain.
    b.upstream.next(
      steps(Buffer.concat([CHUNKED, chunkBytes(DELTA), Buffer.from("ff\r\nhalf")]), (call) => call.end()),
    );
    const client = await b.ask();
    await client.ended;
    assert.ok(client.text.includes(DELTA) && client.text.includes("half"), client.text);
    assert.ok(!isWholeChunked(client.text));
    assert.equal(summary(await b.outcomes.settled(1)), "partial 200 TM_UPSTREAM_CUT");
  },
);

test("fault 1: a reset in a body of known length leaves the client short of it", limits, async () => {
  await using b = await bench();
  const seen = gate();
  const head = headBytes(200, ["Content-Type", "application/json", "Content-Length", "1000"]);
  b.upstream.next(steps(head, '{"half":', resetWhen(seen.opened)));
  const client = await b.ask();
  await client.until('{"half":');
  seen.open();
  await client.ended;
  assert.match(client.text, /content-length: 1000/i);
  assert.equal(bodyText(client.text), '{"half":');
  assert.equal(summary(await b.outcomes.settled(1)), "partial 200 TM_UPSTREAM_CUT");
});

test(
  "fault 1: a reset in a body that only the connection's end delimits is not taken for its end",
  limits,
  async () => {
    await using b = await bench();
    const seen = gate();
    b.upstream.next(steps(headBytes(200, [...SSE, "Connection", "close"]), DELTA, resetWhen(seen.opened)));
    const client = await b.ask();
    await client.until(DELTA);
    seen.open();
    await client.ended;
    assert.ok(!isWholeChunked(client.text), "a reset is no end");
    assert.equal(summary(await b.outcomes.settled(1)), "partial 200 TM_UPSTREAM_CUT");
  },
);

test("fault 1: a client of HTTP/1.0, to whom an end is the body's end, gets a reset", limits, async () => {
  await using b = await bench();
  const seen = gate();
  b.upstream.next(steps(CHUNKED, chunkBytes(DELTA), resetWhen(seen.opened)));
  const client = await b.ask({ version: "1.0" });
  await client.until(DELTA);
  seen.open();
  assert.equal(await client.ended, "reset");
  assert.equal(summary(await b.outcomes.settled(1)), "partial 200 TM_UPSTREAM_CUT");
});

test(
  "fault 2: a clean close without a terminal event is forwarded as it came, and is partial",
  limits,
  async () => {
    await using b = await bench();
    b.upstream.next(steps(CHUNKED, chunkBytes(DELTA), chunkBytes("")));
    const client = await b.ask();
    await client.until(isWholeChunked);
    assert.ok(client.text.includes(DELTA));
    assert.equal(summary(await b.outcomes.settled(1)), "partial 200 TM_UPSTREAM_CUT");

    b.upstream.next(steps(CHUNKED, chunkBytes(DELTA), chunkBytes(STOP), chunkBytes("")));
    const whole = await b.ask();
    await whole.until(isWholeChunked);
    assert.equal(summary(await b.outcomes.settled(2)), "answered 200");
    client.leave();
    whole.leave();
  },
);

test(
  "fault 3: an upstream that falls silent is given up after the idle limit, and not before",
  limits,
  async () => {
    await using b = await bench({ provider: { idle_timeout: 30 } });
    using clock = new FakeClock();
    const ping = chunkBytes(": ping\n\n");
    const later = [gate(), gate(), gate()] as const;
    b.upstream.next(steps(CHUNKED, ping, ...later.flatMap(({ opened }) => [opened, ping])));
    const client = await b.ask();
    const pings = (count: number) => client.until((text) => text.split(": ping\n\n").length > count);
    await pings(1);
    // With gaps below the limit, together longer than it, they keep the stream; then nothing comes any more.
    for (const [index, next] of later.entries()) {
      await clock.advance(20_000);
      next.open();
      await pings(index + 2);
    }
    assert.equal(b.outcomes.all.length, 0);
    await clock.advance(30_000);
    await client.ended;
    assert.ok(!isWholeChunked(client.text));
    assert.equal(summary(await b.outcomes.settled(1)), "partial 200 TM_UPSTREAM_IDLE");
    assert.equal(b.upstream.open, 0, "the half-open connection is closed");
  },
);

test("fault 4: coded replies go through raw, of known and unknown codings", limits, async () => {
  await using b = await bench();
  const plain = Buffer.from(DELTA + STOP);
  const codings: [string, Buffer][] = [
    ["gzip", zlib.gzipSync(plain)],
    ["br", zlib.brotliCompressSync(plain)],
    ["zstd", zlib.zstdCompressSync(plain)],
    ["deflate", zlib.deflateSync(plain)],
    ["x-martian", Buffer.from(plain.map((byte) => byte ^ 0xff))],
    ["gzip", Buffer.from("this is not gzip")],
  ];
  for (const [index, [coding, body]] of codings.entries()) {
    b.upstream.next(wholeReply({ status: 200, headers: [...SSE, "Content-Encoding", coding], body }));
    const client = await b.ask({ headers: ["Connection: close"] });
    await client.ended;
    assert.equal(bodyText(client.text), body.toString("latin1"), coding);
    assert.match(client.text, new RegExp(`content-encoding: ${coding}`, "i"));
    // What decodes is seen to end well; of what does not, nothing is claimed.
    assert.equal(summary(await b.outcomes.settled(index + 1)), "answered 200", coding);
  }
});

test(
  "fault 5: a stream in 1-byte chunks, with every line end, goes through byte for byte",
  limits,
  async () => {
    await using b = await bench();
    const odd = Buffer.from(
      `\ufeff: comment\r\n\r\nevent: a\rdata: é\u{1f600}\r\rdata\n\n\r\nid: \0x\n:\nretry: no\n\n${STOP}`,
    );
    b.upstream.next(
      steps(CHUNKED, ...[...odd].map((byte) => chunkBytes(Buffer.from([byte]))), chunkBytes("")),
    );
    const client = await b.ask();
    await client.until(isWholeChunked);
    const body = unchunked(Buffer.from(bodyText(client.text), "latin1"));
    assert.deepEqual(body, odd);
    assert.equal(summary(await b.outcomes.settled(1)), "answered 200");
    client.leave();
  },
);

test(
  "fault 6: an error event after the head goes through, is known to the observers, and is not tried again",
  limits,
  async () => {
    await using b = await bench();
    const error =
      'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n';
    b.upstream.next(steps(CHUNKED, chunkBytes(DELTA), chunkBytes(error), chunkBytes("")));
    const client = await b.ask();
    await client.until(isWholeChunked);
    assert.ok(client.text.includes(error));
    const settled = await b.outcomes.settled(1);
    assert.equal(settled.outcome.kind, "partial", "it did not come to its regular end");
    assert.deepEqual(settled.streamErrors, ["overloaded_error"]);
    assert.equal(b.upstream.requests.length, 1);
    client.leave();
  },
);

test("fault 7: a ping goes through at once, by itself", limits, async () => {
  await using b = await bench();
  const got = [gate(), gate()];
  const ping = 'event: ping\ndata: {"type":"ping"}\n\n';
  b.upstream.next(
    steps(CHUNKED, got[0]!.opened, chunkBytes(ping), got[1]!.opened, chunkBytes(STOP), chunkBytes("")),
  );
  const client = await b.ask();
  // The head waits for nothing, and neither does the ping: the upstream sends on only after the client has each.
  await client.until("\r\n\r\n");
  got[0]!.open();
  await client.until(ping);
  got[1]!.open();
  await client.until(isWholeChunked);
  assert.equal(statusOf(client.text), 200);
  assert.equal(summary(await b.outcomes.settled(1)), "answered 200");
  client.leave();
});

function unchunked(bytes: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; ; ) {
    const end = bytes.indexOf("\r\n", at);
    const size = Number.parseInt(bytes.subarray(at, end).toString("latin1"), 16);
    if (size === 0) return Buffer.concat(parts);
    parts.push(bytes.subarray(end + 2, end + 2 + size));
    at = end + 2 + size + 2;
  }
}

import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { chunkBytes, FakeClock, gate, headBytes, wholeReply } from "@tokenman/plugin-sdk/testkit";
import { bench, MESSAGE, summary } from "../support/faulty.ts";
import { rawClient, requestBytes } from "../support/raw-client.ts";

const STREAM = headBytes(200, ["Content-Type", "text/event-stream", "Transfer-Encoding", "chunked"]);
const OK = wholeReply({ status: 200, body: '{"ok":1}' });
const UPLOAD = "/v1/messages/files-upload";
const limits = { timeout: 20_000 };

/** Resolves when the event loop, which all of both ends run on, has gone round many times and nothing has moved. */
async function standstill(moved: () => number): Promise<void> {
  for (let before = -1; before !== moved(); ) {
    before = moved();
    for (let turn = 0; turn < 200; turn++) await nextTurn();
  }
}

test(
  "fault 19: a slow reader slows the upstream, which can write little more than the sockets hold",
  limits,
  async () => {
    await using b = await bench();
    const piece = chunkBytes(Buffer.alloc(64 * 1024, "x"));
    const pieces = 768;
    let written = 0;
    b.upstream.next(async (call) => {
      await call.received;
      await call.write(STREAM);
      // Writes as fast as it is let.
      for (let count = 0; count < pieces; count++) {
        written += piece.length;
        await call.write(piece);
      }
      await call.write(chunkBytes(""));
    });
    const client = await b.ask({ headers: ["Connection: close"] }, { paused: true });
    await b.upstream.request(1);
    await standstill(() => written);
    // Of 48 MB. What is in between: the socket buffers of the system, and what the proxy queues.
    assert.ok(written < 24 * 1024 * 1024, `${written} bytes were taken from the upstream`);
    client.socket.resume();
    await client.ended;
    assert.ok(client.bytes.length > pieces * 64 * 1024, "the client gets all of it in the end");
    assert.ok(client.bytes.subarray(-7).equals(Buffer.from("\r\n0\r\n\r\n")));
    await b.outcomes.settled(1);
  },
);

test(
  "fault 19: a client that stops reading is let go after write_timeout, in a stream and at a body's end",
  limits,
  async () => {
    await using b = await bench({ server: "write_timeout = 0.3" });
    const closed = gate();
    const body = Buffer.alloc(16 * 1024 * 1024, "x");
    b.upstream.next(
      async (call) => {
        await call.received;
        await call.write(STREAM);
        call.socket.write(chunkBytes(body), () => {});
        await call.closed;
        closed.open();
      },
      wholeReply({ status: 200, body }),
    );
    const streamed = await b.ask({}, { paused: true });
    assert.equal(summary(await b.outcomes.settled(1)), "aborted 200 TM_CLIENT_STALLED");
    await closed.opened;
    streamed.leave();

    const whole = await b.ask({}, { paused: true });
    assert.equal(summary(await b.outcomes.settled(2)), "aborted 200 TM_CLIENT_STALLED");
    whole.leave();
  },
);

test(
  "fault 19: headers that do not come in time are a 408, and a connection that says nothing is closed",
  limits,
  async () => {
    await using b = await bench({ server: "read_timeout = 0.2" });
    const slow = await rawClient(b.tokenman.proxy);
    const silent = await rawClient(b.tokenman.proxy);
    await slow.send("POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nX-A");
    await slow.ended;
    assert.match(slow.text, /^HTTP\/1\.1 408 /);
    await silent.ended;
    assert.equal(b.outcomes.begun, 0);
  },
);

test(
  "fault 19: a body that stalls is a 408 in the dialect's shape, whether it is read or streams through",
  limits,
  async () => {
    await using b = await bench({ server: "read_timeout = 0.2" });
    const read = await rawClient(b.tokenman.proxy);
    await read.send(requestBytes({ headers: ["Content-Length: 100"] }));
    await read.send("{");
    await read.ended;
    assert.match(read.text, /^HTTP\/1\.1 408 [\s\S]*"type":"error"/);
    assert.equal(summary(await b.outcomes.settled(1)), "refused 408 TM_BODY_TIMEOUT");
    assert.equal(b.upstream.connections, 0);

    const closed = gate();
    b.upstream.next((call) => call.closed.then(closed.open));
    const streamed = await rawClient(b.tokenman.proxy);
    await streamed.send(requestBytes({ target: UPLOAD, headers: ["Content-Length: 100"] }));
    await streamed.send("{");
    await streamed.until("HTTP/1.1 408");
    await closed.opened;
    assert.equal(summary(await b.outcomes.settled(2)), "refused 408 TM_BODY_TIMEOUT");
    streamed.leave();
  },
);

test("fault 19: a body that goes on slowly is no stall", limits, async () => {
  await using b = await bench({ server: "read_timeout = 30" });
  b.upstream.next(OK);
  const client = await rawClient(b.tokenman.proxy);
  using clock = new FakeClock();
  await client.send(requestBytes({ headers: [`Content-Length: ${MESSAGE.length}`] }));
  for (const part of [MESSAGE.slice(0, 9), MESSAGE.slice(9, 20), MESSAGE.slice(20, 30), MESSAGE.slice(30)]) {
    await clock.advance(20_000);
    await client.send(part);
  }
  await client.until('{"ok":1}');
  assert.equal(b.upstream.last().body.toString(), MESSAGE);
  client.leave();
  await b.outcomes.settled(1);
});

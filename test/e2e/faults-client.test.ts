import assert from "node:assert/strict";
import { once } from "node:events";
import net, { type AddressInfo, type Socket } from "node:net";
import { test } from "node:test";
import { definePlugin } from "@tokenman/plugin-sdk";
import { chunkBytes, gate, headBytes, steps, wholeReply } from "@tokenman/plugin-sdk/testkit";
import { bench, MESSAGE, STOP, summary } from "../support/faulty.ts";
import { isWholeChunked, rawClient, requestBytes } from "../support/raw-client.ts";

const STREAM = headBytes(200, ["Content-Type", "text/event-stream", "Transfer-Encoding", "chunked"]);
const OK = wholeReply({ status: 200, body: '{"ok":1}' });
const UPLOAD = "/v1/messages/files-upload";
const limits = { timeout: 20_000 };

test("fault 18: a client that leaves before the head ends the upstream call at once", limits, async () => {
  await using b = await bench();
  const closed = gate();
  b.upstream.next(async (call) => {
    await call.closed;
    closed.open();
  });
  const client = await b.ask();
  await b.upstream.request(1);
  client.leave();
  await closed.opened;
  const settled = await b.outcomes.settled(1);
  assert.equal(summary(settled), "aborted 499 TM_CLIENT_GONE");
  assert.deepEqual(settled.attempts, [{ provider: "anthropic", result: { kind: "cancelled" } }]);
});

test("fault 18: a client that leaves after the head, before any byte of the body", limits, async () => {
  await using b = await bench();
  const closed = gate();
  b.upstream.next(steps(STREAM, (call) => call.closed.then(closed.open)));
  const client = await b.ask();
  await client.until("\r\n\r\n");
  client.leave();
  await closed.opened;
  assert.equal(summary(await b.outcomes.settled(1)), "aborted 200 TM_CLIENT_GONE");
});

test("fault 18: a client that leaves in the middle of a stream, by FIN or by a reset", limits, async () => {
  await using b = await bench();
  for (const [index, leave] of (["destroy", "resetAndDestroy"] as const).entries()) {
    const closed = gate();
    b.upstream.next(steps(STREAM, chunkBytes("event: a\n\n"), (call) => call.closed.then(closed.open)));
    const client = await b.ask();
    await client.until("event: a");
    client.socket[leave]();
    await closed.opened;
    const settled = await b.outcomes.settled(index + 1);
    assert.equal(summary(settled), "aborted 200 TM_CLIENT_GONE");
    assert.deepEqual(settled.attempts[0]!.result, { kind: "reply", status: 200, body: "aborted" });
    assert.equal(settled.outcome.bytesSent, "event: a\n\n".length);
  }
});

test("fault 18: a client that leaves while the upstream is still being connected", limits, async () => {
  // It takes the connection and never answers the TLS greeting.
  const sockets: Socket[] = [];
  const accepted = gate<Socket>();
  const server = net.createServer((socket) => {
    sockets.push(socket);
    socket.on("error", () => {});
    socket.resume();
    accepted.open(socket);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  {
    await using b = await bench({ provider: { api_base: `https://127.0.0.1:${port}` } });
    const client = await b.ask();
    const socket = await accepted.opened;
    const closed = once(socket, "close");
    client.leave();
    await closed;
    assert.equal(summary(await b.outcomes.settled(1)), "aborted 499 TM_CLIENT_GONE");
  }
  {
    await using b = await bench({
      provider: { api_base: `https://127.0.0.1:${port}`, connect_timeout: 0.2 },
    });
    const client = await b.ask();
    await client.until("HTTP/1.1 502");
    assert.equal(summary(await b.outcomes.settled(1)), "refused 502 TM_UPSTREAM_CONNECT");
    client.leave();
  }
  for (const socket of sockets) socket.destroy();
  server.close();
});

test(
  "fault 18: a client that leaves while a plugin holds the request never reaches the upstream",
  limits,
  async () => {
    const holding = gate();
    const left = gate();
    const holder = definePlugin({
      name: "holder",
      version: "1.0.0",
      apiVersion: 1,
      setup: (ctx) =>
        ctx.pipeline((_, hooks) =>
          hooks.request.tap(async (exchange) => {
            exchange.signal.addEventListener("abort", () => left.open());
            holding.open();
            await exchange.wait(left.opened);
          }),
        ),
    });
    await using b = await bench({ plugins: [holder] });
    const client = await b.ask();
    await holding.opened;
    client.leave();
    assert.equal(summary(await b.outcomes.settled(1)), "aborted 499 TM_CLIENT_GONE");
    assert.equal(b.upstream.connections, 0);
  },
);

test("fault 18: a client that leaves in the middle of its own request", limits, async () => {
  await using b = await bench();
  const buffered = await rawClient(b.tokenman.proxy);
  await buffered.send(requestBytes({ headers: ["Content-Length: 100"] }));
  await b.outcomes.start(1);
  buffered.leave();
  assert.equal(summary(await b.outcomes.settled(1)), "aborted 499 TM_CLIENT_GONE");
  assert.equal(b.upstream.connections, 0);

  const closed = gate();
  b.upstream.next((call) => call.closed.then(closed.open));
  const streamed = await rawClient(b.tokenman.proxy);
  await streamed.send(requestBytes({ target: UPLOAD, headers: ["Content-Length: 100"] }));
  await streamed.send("half of it");
  await b.upstream.arrival(1);
  streamed.leave();
  await closed.opened;
  assert.equal(summary(await b.outcomes.settled(2)), "aborted 499 TM_CLIENT_GONE");
  assert.ok(!b.upstream.requests[0]!.complete);
});

test(
  "fault 18: an in-process provider's signal fires when the client leaves in the middle of its stream",
  limits,
  async () => {
    const fired = gate();
    const local = definePlugin({
      name: "local",
      version: "1.0.0",
      apiVersion: 1,
      setup(ctx) {
        ctx.contribute("provider", {
          name: "local",
          format: "anthropic",
          apiBase: undefined,
          models: ["local"],
          priority: -1,
          timeouts: { connectMs: 0, headMs: 0, idleMs: 0 },
          auth: "none",
          answer: (_request, _exchange, attempt) => ({
            status: 200,
            headers: ["content-type", "text/event-stream"],
            body: (async function* () {
              yield Buffer.from("event: a\n\n");
              await new Promise<void>((resolve) => {
                attempt.signal.addEventListener("abort", () => resolve());
              });
              fired.open();
            })(),
          }),
        });
      },
    });
    await using b = await bench({ plugins: [local] });
    const client = await b.ask({ body: MESSAGE.replace("claude-x", "local") });
    await client.until("event: a");
    client.leave();
    await fired.opened;
    assert.equal(summary(await b.outcomes.settled(1)), "aborted 200 TM_CLIENT_GONE");
  },
);

test(
  "fault 19: a slow reader slows the upstream, which can write little more than the sockets hold",
  limits,
  async () => {
    await using b = await bench();
    const piece = chunkBytes(Buffer.alloc(64 * 1024, "x"));
    const pieces = 768;
    let written = 0;
    const stuck = gate();
    b.upstream.next(async (call) => {
      await call.received;
      await call.write(STREAM);
      // Writes as fast as it is let. Stuck is: nothing left the socket for a while.
      for (let count = 0; count < pieces; count++) {
        written += piece.length;
        const timer = setTimeout(() => stuck.open(), 300);
        await call.write(piece);
        clearTimeout(timer);
      }
      stuck.open();
      await call.write(chunkBytes(""));
    });
    const client = await b.ask({ headers: ["Connection: close"] }, { paused: true });
    await stuck.opened;
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
  await using b = await bench({ server: "read_timeout = 0.3" });
  b.upstream.next(OK);
  const client = await rawClient(b.tokenman.proxy);
  await client.send(requestBytes({ headers: [`Content-Length: ${MESSAGE.length}`] }));
  for (const part of [MESSAGE.slice(0, 9), MESSAGE.slice(9, 20), MESSAGE.slice(20, 30), MESSAGE.slice(30)]) {
    await new Promise((resolve) => setTimeout(resolve, 110));
    await client.send(part);
  }
  await client.until('{"ok":1}');
  assert.equal(b.upstream.last().body.toString(), MESSAGE);
  client.leave();
  await b.outcomes.settled(1);
});

test(
  "fault 27: of many identical requests at once, one that is given up does not hurt the others",
  limits,
  async () => {
    await using b = await bench();
    const go = gate();
    b.upstream.script(steps(STREAM, chunkBytes("event: a\n\n"), go.opened, chunkBytes(STOP), chunkBytes("")));
    const clients = await Promise.all(Array.from({ length: 20 }, () => b.ask()));
    await Promise.all(clients.map((client) => client.until("event: a")));
    const leaving = clients.splice(5, 7);
    for (const client of leaving) client.leave();
    await b.outcomes.settled(leaving.length);
    go.open();
    await Promise.all(clients.map((client) => client.until(isWholeChunked)));
    await b.outcomes.settled(20);
    const kinds = b.outcomes.all.map(summary).sort();
    assert.deepEqual(kinds, [
      ...Array.from({ length: 7 }, () => "aborted 200 TM_CLIENT_GONE"),
      ...Array.from({ length: 13 }, () => "answered 200"),
    ]);
    for (const client of clients) client.leave();
  },
);

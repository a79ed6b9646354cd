import assert from "node:assert/strict";
import { once } from "node:events";
import net, { type AddressInfo, type Socket } from "node:net";
import { test } from "node:test";
import { definePlugin } from "@tokenman/plugin-sdk";
import { chunkBytes, gate, headBytes, steps } from "@tokenman/plugin-sdk/testkit";
import { bench, MESSAGE, STOP, summary } from "../support/faulty.ts";
import { isWholeChunked, rawClient, requestBytes } from "../support/raw-client.ts";

const STREAM = headBytes(200, ["Content-Type", "text/event-stream", "Transfer-Encoding", "chunked"]);
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
    await using b = await bench({ provider: { api_base: `https://127.0.0.1:${port}`, connect_timeout: 0 } });
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
    await client.until("HTTP/1.1 504");
    assert.equal(summary(await b.outcomes.settled(1)), "refused 504 TM_UPSTREAM_CONNECT_TIMEOUT");
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

test(
  "fault 33: a shutdown in the middle of busy streams breaks each of them off, and nothing else",
  limits,
  async () => {
    await using b = await bench();
    const piece = chunkBytes(Buffer.alloc(16 * 1024, "x"));
    b.upstream.script(async (call) => {
      await call.received;
      await call.write(STREAM);
      while (!call.socket.destroyed) await call.write(piece);
    });
    const clients = await Promise.all(Array.from({ length: 10 }, () => b.ask()));
    await Promise.all(clients.map((client) => client.until("xxx")));
    await b.tokenman.stop();
    await Promise.all(clients.map((client) => client.ended));
    for (const client of clients) assert.ok(!isWholeChunked(client.text));
    assert.deepEqual(b.outcomes.all.map(summary), Array(10).fill("failed 200 TM_SHUTTING_DOWN"));
  },
);

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { definePlugin, type Outcome } from "@tokenman/plugin-sdk";
import { assertSameBytes, chunked, looking, requestBytes, startRelay, WAYS } from "../support/relay.ts";
import { gate, type UpstreamCall } from "../support/upstream.ts";
import { WireClient } from "../support/wire-client.ts";

const KEY = ["x-api-key: k"];
const BODY = '{"model":"m"}';
const SSE_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

describe("a client's connection", () => {
  it("serves a hundred requests, one after the other, and so does the upstream's", async () => {
    await using relay = await startRelay();
    using client = await relay.client();
    relay.upstream.script(async (call) => {
      await call.received;
      await call.reply({ status: 200, body: `answer to ${call.request.body}` });
    });
    for (let number = 0; number < 100; number++) {
      const target =
        number % 3 === 0 ? "/v1/messages" : number % 3 === 1 ? "/v1/chat/completions" : "/v1/other";
      const lines = ["anthropic-version: 2023-06-01", ...KEY, "authorization: Bearer k"];
      const reply = await client.ask(requestBytes({ target, lines, body: String(number) }));
      assert.equal(reply.body.toString(), `answer to ${number}`);
    }
    assert.equal(relay.upstream.connections, 1);
    assert.equal(client.socket.readyState, "open");
  });

  it("may bring its requests all at once: the replies come in their order", async () => {
    await using relay = await startRelay();
    using client = await relay.client();
    const last = gate();
    relay.upstream.script(async (call) => {
      await call.received;
      // The upstream answers the last one first.
      if (call.request.body.toString() === "4") last.open();
      else await last.opened;
      await call.write(SSE_HEAD);
      await call.write(
        chunked(Buffer.from(`data: ${call.request.body} ${"x".repeat(200_000)}\n\n`), [5_000]),
      );
    });
    const requests = [0, 1, 2, 3, 4].map((number) => requestBytes({ lines: KEY, body: String(number) }));
    for (const _ of requests) client.expect("POST");
    await client.send(Buffer.concat(requests));
    for (const number of requests.keys()) {
      const reply = await client.reply();
      assert.equal(reply.whole, true);
      assertSameBytes(
        reply.body,
        Buffer.from(`data: ${number} ${"x".repeat(200_000)}\n\n`),
        `reply ${number}`,
      );
    }
  });

  it("that ends with several requests under way calls all of them off", async () => {
    const settled: Outcome[] = [];
    const all = gate();
    const plugin = definePlugin({
      name: "settled",
      version: "1.0.0",
      apiVersion: 1,
      setup(ctx) {
        ctx.pipeline((_config, hooks) => {
          hooks.lifecycle.for("settled").tap((_exchange, outcome) => {
            if (settled.push(outcome) === 3) all.open();
          });
        });
      },
    });
    await using relay = await startRelay({ plugins: [plugin] });
    using client = await relay.client();
    const calls: UpstreamCall[] = [];
    const three = gate();
    relay.upstream.script(async (call) => {
      await call.received;
      await call.write(`${SSE_HEAD}9\r\ndata: 1\n\n\r\n`);
      if (calls.push(call) === 3) three.open();
      await call.closed;
    });
    await client.send(
      Buffer.concat([0, 1, 2].map((number) => requestBytes({ lines: KEY, body: String(number) }))),
    );
    await three.opened;
    await client.reply((reply) => reply.bodyBytes === 9);
    client.reset();
    await Promise.all(calls.map((call) => call.closed));
    await all.opened;
    assert.deepEqual(
      settled.map(({ kind }) => kind),
      ["aborted", "aborted", "aborted"],
    );
  });

  for (const keepAlive of [false, true]) {
    it(`of HTTP/1.0 gets no chunks${keepAlive ? ", and may stay" : ""}`, async () => {
      await using relay = await startRelay();
      const lines = keepAlive ? [...KEY, "Connection: keep-alive"] : KEY;
      using client = await relay.client();
      relay.upstream.next(async (call) => {
        await call.received;
        await call.reply({ status: 200, body: "of known length" });
      });
      const known = await client.ask(requestBytes({ version: "1.0", lines, body: BODY }));
      assert.equal(known.framing, "length");
      assert.equal(known.body.toString(), "of known length");
      if (!keepAlive) await client.closed;
      using another = await relay.client();
      relay.upstream.next(async (call) => {
        await call.received;
        await call.write(SSE_HEAD);
        await call.write(chunked(Buffer.from("data: 1\n\ndata: 2\n\n"), [9]));
      });
      const stream = await another.ask(requestBytes({ version: "1.0", lines, body: BODY }));
      assert.equal(stream.framing, "close");
      assert.equal(stream.whole, true);
      assert.equal(stream.body.toString(), "data: 1\n\ndata: 2\n\n");
    });
  }

  it("of HTTP/1.0 is reset where the upstream breaks: its end would look like the body's", async () => {
    await using relay = await startRelay();
    using client = await relay.client();
    relay.upstream.next(async (call) => {
      await call.received;
      await call.write(`${SSE_HEAD}9\r\ndata: 1\n\n\r\n`);
      call.reset();
    });
    const reply = await client.ask(requestBytes({ version: "1.0", lines: KEY, body: BODY }));
    assert.equal(reply.broken, true);
    assert.equal(reply.whole, false);
  });

  it("may be closed by the client's wish after its reply", async () => {
    await using relay = await startRelay();
    using client = await relay.client();
    const reply = await client.ask(requestBytes({ lines: [...KEY, "Connection: close"], body: BODY }));
    assert.equal(reply.whole, true);
    assert.deepEqual(reply.values("connection"), ["close"]);
    await client.closed;
  });
});

describe("a slow client", () => {
  for (const way of WAYS) {
    it(`slows the upstream, and TokenMan holds little: ${way}`, async () => {
      const looks = looking();
      await using relay = await startRelay({ plugins: [looks.plugin], config: looks.config });
      const client = await WireClient.connect(relay.tokenman.proxy);
      client.socket.pause();
      const size = 64 * 1024;
      const event = Buffer.from(`data: ${"x".repeat(size - 8)}\n\n`);
      const total = 1_600;
      let written = 0;
      const stuck = gate();
      relay.upstream.next(async (call) => {
        await call.received;
        const { socket } = call;
        await call.write(SSE_HEAD);
        const chunk = chunked(event, [size]).subarray(0, -5);
        for (; written < total; written++) {
          if (socket.write(chunk)) continue;
          // The writes are no more taken when the buffers of both connections are full.
          const drained = new Promise<void>((resolve) => socket.once("drain", resolve));
          stuck.open();
          await drained;
        }
        await call.write("0\r\n\r\n");
      });
      await client.send(requestBytes({ lines: [...KEY, `X-Tokenman-Project: ${way}`], body: BODY }));
      await stuck.opened;
      // Nothing tells that nothing more will happen; the loop turning idly many times comes close.
      for (let turn = 0; turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve));
      const held = written * size;
      assert.ok(
        held < 30 * 1024 * 1024,
        `${held} bytes were taken from the upstream for a client that reads nothing`,
      );
      client.socket.resume();
      const reply = await client.reply();
      assert.equal(reply.whole, true);
      assert.equal(reply.bodyBytes, total * size);
      assertSameBytes(reply.body.subarray(-size), event, "the last event");
      client[Symbol.dispose]();
    });
  }
});

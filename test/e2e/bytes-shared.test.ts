import assert from "node:assert/strict";
import { describe, it } from "node:test";
import zlib from "node:zlib";
import { definePlugin, type Plugin, type ReplyInit, type SharedReply } from "@tokenman/plugin-sdk";
import { assertSameBytes, chunked, type Relay, requestBytes, startRelay } from "../support/relay.ts";
import { type Gate, gate, type UpstreamCall } from "../support/upstream.ts";
import type { WireClient } from "../support/wire-client.ts";

const SSE = "Content-Type: text/event-stream";
const HEAD = `HTTP/1.1 200 OK\r\n${SSE}\r\nSet-Cookie: a\r\nset-cookie: b\r\nTransfer-Encoding: chunked\r\n\r\n`;

interface Flight {
  readonly plugin: Plugin;
  /** How many exchanges follow by now. */
  followers(count: number): Promise<void>;
}

/** Single flight: the first exchange asks the provider, those with the same body follow its reply. */
function flight(options: { readonly maxBytes?: number; readonly mapsAfter?: boolean } = {}): Flight {
  const { maxBytes = 64 * 1024 * 1024, mapsAfter = false } = options;
  const shared = new Map<string, Gate<SharedReply>>();
  let joined = 0;
  const waiting: { count: number; enough: Gate }[] = [];
  const plugin = definePlugin({
    name: "flight",
    version: "1.0.0",
    apiVersion: 1,
    setup(ctx) {
      ctx.pipeline((_config, hooks) => {
        hooks.request.tap(async (exchange): Promise<ReplyInit | undefined> => {
          const key = exchange.request.body?.toString() ?? "";
          const leader = shared.get(key);
          if (leader === undefined) {
            shared.set(key, gate());
            return undefined;
          }
          const reply = (await exchange.wait(leader.opened)).join();
          joined++;
          for (const { count, enough } of waiting) if (joined >= count) enough.open();
          return reply;
        });
        hooks.response.tap((reply, exchange) => {
          shared.get(exchange.request.body?.toString() ?? "")?.open(reply.share({ maxBytes }));
          if (mapsAfter) reply.mapEvents({ event: (event) => [Buffer.from(": mine\n\n"), event] });
        });
      });
    },
  });
  return {
    plugin,
    followers(count) {
      const enough = gate();
      if (joined >= count) enough.open();
      waiting.push({ count, enough });
      return enough.opened;
    },
  };
}

/** An upstream that writes an event whenever the test says so. */
function speaking(): {
  script(call: UpstreamCall): Promise<void>;
  say(text: string): Promise<void>;
  end(): void;
  readonly closed: Promise<void>;
} {
  const began = gate<UpstreamCall>();
  const done = gate();
  const over = gate();
  return {
    async script(call) {
      await call.received;
      await call.write(HEAD);
      began.open(call);
      void call.closed.then(() => over.open());
      await done.opened;
      if (!call.socket.destroyed) await call.write("0\r\n\r\n");
    },
    async say(text) {
      const call = await began.opened;
      const bytes = Buffer.from(text);
      await call.write(chunked(bytes, [Math.max(1, bytes.length)]).subarray(0, -5));
    },
    end: () => done.open(),
    closed: over.opened,
  };
}

async function follow(relay: Relay, body: string): Promise<WireClient> {
  const client = await relay.client();
  await client.send(requestBytes({ lines: ["x-api-key: k"], body }));
  return client;
}

/** Numbers that look random and are the same in every run. */
function dice(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

describe("a reply that many exchanges share", () => {
  for (const leaderLeaves of [true, false]) {
    it(`reaches all that stay, byte for byte: 50 followers, random leaving, the leader ${leaderLeaves ? "first" : "stays"}`, async () => {
      const { plugin, followers } = flight();
      await using relay = await startRelay({ plugins: [plugin] });
      const upstream = speaking();
      relay.upstream.script((call) => upstream.script(call));
      const body = '{"model":"m","stream":true}';
      const random = dice(leaderLeaves ? 7 : 11);
      const leader = await follow(relay, body);
      await upstream.say("data: 0\n\n");
      await leader.reply((reply) => reply.bodyBytes >= 9);
      const all = await Promise.all(Array.from({ length: 50 }, () => follow(relay, body)));
      await followers(50);
      if (leaderLeaves) leader.reset();
      let stream = "data: 0\n\n";
      let staying = all;
      for (let event = 1; event <= 30; event++) {
        const text = `data: ${event} ${"é".repeat(Math.floor(random() * 3_000))}\n\n`;
        stream += text;
        await upstream.say(text);
        const leaving = staying.filter(() => random() < 0.03);
        for (const client of leaving) client.reset();
        staying = staying.filter((client) => !leaving.includes(client));
      }
      assert.ok(staying.length > 5 && staying.length < 40, `${staying.length} stay`);
      upstream.end();
      const late = await follow(relay, body);
      for (const client of [...staying, late, ...(leaderLeaves ? [] : [leader])]) {
        const reply = await client.reply();
        assert.equal(reply.whole, true);
        assertSameBytes(reply.body, Buffer.from(stream), "a follower");
        assert.deepEqual(reply.values("set-cookie"), ["a", "b"]);
        client[Symbol.dispose]();
      }
      assert.equal(relay.upstream.requests.length, 1);
    });
  }

  it("is called off when the last one leaves, and not before", async () => {
    const { plugin, followers } = flight();
    await using relay = await startRelay({ plugins: [plugin] });
    const upstream = speaking();
    relay.upstream.script((call) => upstream.script(call));
    let isOver = false;
    void upstream.closed.then(() => {
      isOver = true;
    });
    const leader = await follow(relay, "{}");
    await upstream.say("data: 0\n\n");
    await leader.reply((reply) => reply.bodyBytes >= 9);
    const [one, two] = await Promise.all([follow(relay, "{}"), follow(relay, "{}")]);
    await followers(2);
    await one!.reply((reply) => reply.bodyBytes >= 9);
    leader.reset();
    await leader.closed;
    one!.reset();
    await one!.closed;
    await upstream.say("data: 1\n\n");
    await two!.reply((reply) => reply.bodyBytes >= 18);
    assert.equal(isOver, false);
    two!.reset();
    await upstream.closed;
    upstream.end();
  });

  it("breaks for all where the upstream breaks, and nobody joins it any more", async () => {
    const { plugin, followers } = flight();
    await using relay = await startRelay({ plugins: [plugin] });
    const broken = gate();
    relay.upstream.next(async (call) => {
      await call.received;
      await call.write(HEAD);
      await call.write("9\r\ndata: 0\n\n\r\n");
      await broken.opened;
      call.reset();
    });
    const leader = await follow(relay, "{}");
    await leader.reply((reply) => reply.bodyBytes >= 9);
    const follower = await follow(relay, "{}");
    await followers(1);
    broken.open();
    for (const client of [leader, follower]) {
      const reply = await client.reply();
      assert.equal(reply.broken, true);
      assert.equal(reply.body.toString(), "data: 0\n\n");
    }
    const late = await follow(relay, "{}");
    assert.equal((await late.reply()).whole, true);
    assert.equal(relay.upstream.requests.length, 2);
    late[Symbol.dispose]();
  });

  it("is cut for a follower that lags behind the buffer, and for no other", async () => {
    const { plugin, followers } = flight({ maxBytes: 1_000_000 });
    await using relay = await startRelay({ plugins: [plugin] });
    const upstream = speaking();
    relay.upstream.script((call) => upstream.script(call));
    const leader = await follow(relay, "{}");
    await upstream.say("data: 0\n\n");
    await leader.reply((reply) => reply.bodyBytes >= 9);
    const [slow, quick] = await Promise.all([follow(relay, "{}"), follow(relay, "{}")]);
    await followers(2);
    await slow!.reply((reply) => reply.bodyBytes >= 9);
    slow!.socket.pause();
    let stream = "data: 0\n\n";
    // More than the buffer and what the system buffers for two sockets.
    for (let event = 0; event < 40; event++) {
      const text = `data: ${"x".repeat(499_992)}\n\n`;
      stream += text;
      await upstream.say(text);
      await quick!.reply((reply) => reply.bodyBytes >= stream.length);
    }
    upstream.end();
    assertSameBytes((await quick!.reply()).body, Buffer.from(stream), "the quick one");
    assertSameBytes((await leader.reply()).body, Buffer.from(stream), "the leader");
    slow!.socket.resume();
    const cut = await slow!.reply();
    assert.equal(cut.broken, true);
    assertSameBytes(cut.body, Buffer.from(stream).subarray(0, cut.bodyBytes), "the slow one");
    leader[Symbol.dispose]();
    quick![Symbol.dispose]();
  });

  it("is the provider's own, coding and length included, where only the leader's is rewritten", async () => {
    const { plugin } = flight({ mapsAfter: true });
    await using relay = await startRelay({ plugins: [plugin] });
    const stream = "data: 1\n\ndata: 2\n\n";
    const body = zlib.gzipSync(stream);
    relay.upstream.script(async (call) => {
      await call.received;
      await call.write(
        `HTTP/1.1 200 OK\r\n${SSE}\r\nContent-Encoding: gzip\r\nContent-Length: ${body.length}\r\n\r\n`,
      );
      await call.write(body);
    });
    using leader = await relay.client();
    const rewritten = await leader.ask(requestBytes({ lines: ["x-api-key: k"], body: "{}" }));
    assert.equal(rewritten.body.toString(), ": mine\n\ndata: 1\n\n: mine\n\ndata: 2\n\n");
    using follower = await relay.client();
    const reply = await follower.ask(requestBytes({ lines: ["x-api-key: k"], body: "{}" }));
    assertSameBytes(reply.body, body, "the follower");
    assert.deepEqual(reply.values("content-encoding"), ["gzip"]);
    assert.deepEqual(reply.values("content-length"), [String(body.length)]);
  });
});

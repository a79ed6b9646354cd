import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { describe, it } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { definePlugin, headerValue, type Plugin } from "@tokenman/plugin-sdk";
import {
  type ClientReply,
  chunkBytes,
  errorReply,
  gate,
  headBytes,
  Random,
  type RecordingUpstream,
  recordingUpstream,
  sendRequest,
  textEvents,
  textReply,
  type UpstreamCall,
  wholeReply,
} from "@tokenman/plugin-sdk/testkit";
import { startTokenman, type Tokenman } from "../support/kernel.ts";
import { requestBytes } from "../support/relay.ts";
import { WireClient } from "../support/wire-client.ts";

const BODY = JSON.stringify({
  model: "m",
  stream: true,
  max_tokens: 9,
  messages: [{ role: "user", content: "hi" }],
});
const REQUEST = requestBytes({ lines: ["x-api-key: k", "Content-Type: application/json"], body: BODY });
const SSE = ["Content-Type", "text/event-stream", "Transfer-Encoding", "chunked", "Set-Cookie", "a=1"];

interface Rig extends AsyncDisposable {
  readonly upstream: RecordingUpstream;
  readonly tokenman: Tokenman;
  clients(count: number): Promise<WireClient[]>;
  /** Resolves when so many exchanges are under way. */
  active(count: number): Promise<void>;
  ask(): Promise<ClientReply>;
}

async function rig(...plugins: readonly Plugin[]): Promise<Rig> {
  const upstream = await recordingUpstream();
  const tokenman = await startTokenman({
    also: ["cache"],
    plugins,
    config: `[providers.anthropic]\napi_base = "${upstream.url}"\nauth = "client"\n`,
  });
  return {
    upstream,
    tokenman,
    async clients(count) {
      const clients: WireClient[] = [];
      for (let made = 0; made < count; made++) clients.push(await WireClient.connect(tokenman.proxy));
      await Promise.all(clients.map((client) => client.send(REQUEST)));
      return clients;
    },
    async active(count) {
      while (tokenman.status().activeExchanges !== count) await turn();
    },
    ask: () =>
      sendRequest(`${tokenman.proxy}/v1/messages`, {
        headers: ["x-api-key", "k", "Content-Type", "application/json"],
        body: BODY,
      }),
    async [Symbol.asyncDispose]() {
      await tokenman.stop();
      await upstream.stop();
      assert.deepEqual(upstream.failures, []);
      assert.deepEqual(
        tokenman.log.filter(({ level }) => level === "error"),
        [],
      );
    },
  };
}

/** An upstream call that goes on when the test says so. */
function held(upstream: RecordingUpstream): Promise<UpstreamCall> & { readonly over: () => void } {
  const began = gate<UpstreamCall>();
  const over = gate();
  upstream.next(async (call) => {
    await call.received;
    began.open(call);
    await over.opened;
  });
  return Object.assign(began.opened, { over: () => over.open() });
}

describe("cache: identical requests at the same time", () => {
  it("fault 27: 1,000 of them make one call; any of them leave at any time, the first one included", async () => {
    await using rigged = await rig();
    const call = held(rigged.upstream);
    const random = new Random(4711);
    const events = [
      ...textEvents("anthropic-messages").slice(0, -1),
      ...Array.from({ length: 40 }, (_, index) =>
        Buffer.from(`event: ping\ndata: {"type":"ping","n":"${index}${"é".repeat(random.below(900))}"}\n\n`),
      ),
      ...textEvents("anthropic-messages").slice(-1),
    ];
    const [leader] = await rigged.clients(1);
    const { write } = await call;
    const all = await rigged.clients(999);
    await rigged.active(1_000);
    let staying = all;
    const leave = (share: number): void => {
      const leaving = staying.filter(() => random.chance(share));
      for (const client of leaving) client.reset();
      staying = staying.filter((client) => !leaving.includes(client));
    };
    leader!.reset();
    leave(0.1);
    await rigged.active(staying.length + 1);
    await write(headBytes(200, SSE));
    for (const event of events) {
      await write(chunkBytes(event));
      leave(0.01);
    }
    await write(chunkBytes(""));
    call.over();
    assert.ok(staying.length > 300 && staying.length < 800, `${staying.length} stay`);
    const expected = Buffer.concat(events);
    for (const client of staying) {
      const reply = await client.reply();
      assert.equal(reply.whole, true);
      assert.ok(reply.body.equals(expected), "the same bytes");
      assert.deepEqual(reply.values("x-tokenman-cache"), ["COALESCED"]);
      assert.deepEqual(reply.values("set-cookie"), []);
      client[Symbol.dispose]();
    }
    assert.equal(rigged.upstream.requests.length, 1);
    await rigged.active(0);
    const later = await rigged.ask();
    assert.equal(headerValue(later.headers, "x-tokenman-cache"), "HIT", "kept, though its client had left");
    assert.ok(later.body.equals(expected));
  });

  it("the call ends when all have left, before its head as well as behind it", async () => {
    for (const withHead of [false, true]) {
      await using rigged = await rig();
      const call = held(rigged.upstream);
      const [leader] = await rigged.clients(1);
      const { write, closed } = await call;
      const others = await rigged.clients(5);
      await rigged.active(6);
      if (withHead) {
        await write(headBytes(200, SSE));
        await write(chunkBytes(": hello\n\n"));
        await Promise.all([leader!, ...others].map((client) => client.reply((reply) => reply.bodyBytes > 0)));
      }
      leader!.reset();
      await rigged.active(6);
      for (const client of others) client.reset();
      await closed;
      call.over();
      await rigged.active(0);
      const next = await rigged.ask();
      assert.equal(headerValue(next.headers, "x-tokenman-cache"), "MISS");
      assert.equal(next.complete, true);
    }
  });

  it("who comes after the first one has left alone goes by itself", async () => {
    await using rigged = await rig();
    const call = held(rigged.upstream);
    const [leader] = await rigged.clients(1);
    const { closed } = await call;
    leader!.reset();
    await closed;
    call.over();
    assert.equal((await rigged.ask()).complete, true);
    assert.equal(rigged.upstream.requests.length, 2);
  });

  const retryAfter = ["retry-after", "7"];
  const text = textReply("anthropic-messages");
  for (const [what, given] of [
    ["a provider's error", errorReply("anthropic-messages", 529, retryAfter)],
    ["a whole reply that is no 200", { ...text, status: 201, headers: [...text.headers!, ...retryAfter] }],
  ] as const)
    it(`${what} goes to all who waited, and to nobody else`, async () => {
      await using rigged = await rig();
      const call = held(rigged.upstream);
      const all = await rigged.clients(1);
      const { reply } = await call;
      all.push(...(await rigged.clients(20)));
      await rigged.active(21);
      await reply(given);
      call.over();
      for (const client of all) {
        const got = await client.reply();
        assert.equal(got.status, given.status);
        assert.equal(String(got.body), String(given.body));
        assert.deepEqual(got.values("retry-after"), ["7"]);
        client[Symbol.dispose]();
      }
      assert.equal(rigged.upstream.requests.length, 1);
      assert.equal((await rigged.ask()).status, 200);
      assert.equal(rigged.upstream.requests.length, 2);
    });

  it("a provider that breaks off before it answers fails all who waited, each with its own id, with one call", async () => {
    await using rigged = await rig();
    const call = held(rigged.upstream);
    const all = await rigged.clients(1);
    const { reset } = await call;
    all.push(...(await rigged.clients(20)));
    await rigged.active(21);
    reset();
    call.over();
    const ids = new Set<string>();
    for (const client of all) {
      const got = await client.reply();
      assert.equal(got.status, 502);
      const body = JSON.parse(String(got.body)) as { readonly request_id: string };
      assert.deepEqual(got.values("x-tokenman-request-id"), [body.request_id]);
      ids.add(body.request_id);
      client[Symbol.dispose]();
    }
    assert.equal(ids.size, 21);
    assert.equal(rigged.upstream.requests.length, 1);
  });

  it("a stream that breaks breaks for all, visibly, and is not kept", async () => {
    await using rigged = await rig();
    const call = held(rigged.upstream);
    const all = await rigged.clients(1);
    const { write, reset } = await call;
    all.push(...(await rigged.clients(20)));
    await rigged.active(21);
    const [first] = textEvents("anthropic-messages");
    await write(headBytes(200, SSE));
    await write(chunkBytes(first!));
    await Promise.all(all.map((client) => client.reply((reply) => reply.bodyBytes >= first!.length)));
    reset();
    call.over();
    for (const client of all) {
      const got = await client.reply();
      assert.equal(got.broken, true);
      assert.deepEqual(got.body, first);
    }
    const next = await rigged.ask();
    assert.equal(headerValue(next.headers, "x-tokenman-cache"), "MISS");
    assert.equal(next.complete, true);
  });

  it("where the first is refused for what it is itself, another one goes in its place", async () => {
    const came = gate();
    const goOn = gate();
    let refused = 0;
    const once = definePlugin({
      name: "once",
      version: "1.0.0",
      apiVersion: 1,
      stage: "admit",
      setup(ctx) {
        ctx.pipeline((_config, hooks) => {
          hooks.request.tap(async (exchange) => {
            if (refused++ > 0) return undefined;
            came.open();
            await exchange.wait(goOn.opened);
            return exchange.refuse({ code: "TM_RATE_LIMITED", message: "Not now." });
          });
        });
      },
    });
    await using rigged = await rig();
    // Behind the cache, where guards are.
    const file = rigged.tokenman.configFile;
    await using behind = await startTokenman({
      also: ["cache"],
      plugins: [once],
      config: `${readFileSync(file, "utf8")}\n[plugins]\norder = ["cache", "once"]\n`,
    });
    rigged.upstream.script(wholeReply(textReply("anthropic-messages")));
    const connect = async (): Promise<WireClient> => {
      const client = await WireClient.connect(behind.proxy);
      await client.send(REQUEST.toString("latin1").replace('"stream":true', '"stream":null'));
      return client;
    };
    const leader = await connect();
    await came.opened;
    const others = await Promise.all(Array.from({ length: 10 }, connect));
    while (behind.status().activeExchanges !== 11) await turn();
    goOn.open();
    assert.equal((await leader.reply()).status, 429);
    for (const client of others) assert.equal((await client.reply()).status, 200);
    assert.equal(rigged.upstream.requests.length, 1);
    for (const client of [leader, ...others]) client[Symbol.dispose]();
  });

  it("a reload in between parts nobody from the call", async () => {
    await using rigged = await rig();
    const call = held(rigged.upstream);
    const all = await rigged.clients(1);
    const { write } = await call;
    const file = rigged.tokenman.configFile;
    writeFileSync(file, `${readFileSync(file, "utf8")}\n[cache]\nttl_seconds = 77\n`);
    assert.equal((await rigged.tokenman.reload("test")).ok, true);
    all.push(...(await rigged.clients(5)));
    await rigged.active(6);
    await write(headBytes(200, SSE));
    await write(chunkBytes(Buffer.concat(textEvents("anthropic-messages"))));
    await write(chunkBytes(""));
    call.over();
    for (const client of all) {
      assert.equal((await client.reply()).whole, true);
      client[Symbol.dispose]();
    }
    assert.equal(rigged.upstream.requests.length, 1);
  });
});

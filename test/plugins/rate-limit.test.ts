import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { describe, test } from "node:test";
import { headerValue, type ReplyInit } from "@tokenman/plugin-sdk";
import {
  FakeClock,
  gate,
  type PluginSettings,
  providersAt,
  recordingUpstream,
  runPlugin,
  type Sent,
  sendRequest,
} from "@tokenman/plugin-sdk/testkit";
import { adviceOf } from "../../plugins/rate-limit/advice.ts";
import { Bucket } from "../../plugins/rate-limit/bucket.ts";
import rateLimit from "../../plugins/rate-limit/index.ts";
import { rateLimitSchema } from "../../plugins/rate-limit/schema.ts";
import { startTokenman } from "../support/kernel.ts";

const BODY = { model: "m", max_tokens: 10, messages: [{ role: "user", content: "hello" }] };
const OK: ReplyInit = { status: 200, headers: ["Content-Type", "application/json"], body: "{}" };

type Table = NonNullable<PluginSettings["config"]>;
async function running(config: Table, settings: Omit<PluginSettings, "config"> = {}) {
  const run = await runPlugin(rateLimit, { ...settings, config: { enabled: true, ...config } });
  return {
    run,
    ask: (
      answer: ReplyInit | (() => ReplyInit | Promise<ReplyInit>) = OK,
      more: { model?: string; project?: string; path?: string } = {},
    ) => {
      const { model = "m", project, path = "/v1/messages" } = more;
      return run.send({ path, body: { ...BODY, model }, ...(project !== undefined && { project }) }, answer);
    },
    [Symbol.asyncDispose]: () => run.stop(),
  };
}
const status = ({ reply }: Sent) => reply.status;

describe("a bucket", () => {
  test("gives its burst at once, and then as fast as it fills", () => {
    let now = 0;
    const bucket = new Bucket({ perSecond: 2, burst: 3 }, () => now);
    for (let count = 0; count < 3; count++) {
      assert.equal(bucket.delayMs(1), 0);
      bucket.take(1);
    }
    assert.equal(bucket.delayMs(1), 500);
    now = 400;
    assert.ok(Math.abs(bucket.delayMs(1) - 100) < 1e-6);
    now = 500;
    assert.equal(bucket.delayMs(1), 0);
    now = 1e9;
    assert.equal(bucket.level, 3, "it holds no more than its burst");
  });

  test("serves those who wait in the order in which they came, whatever they ask for", async () => {
    using clock = new FakeClock();
    const bucket = new Bucket({ perSecond: 1, burst: 4 });
    bucket.take(4);
    const served: string[] = [];
    const wait = (name: string, amount: number) => {
      const waiter = bucket.wait(amount);
      void waiter.served.then((done) => served.push(done ? name : `${name} left`));
      return waiter;
    };
    wait("big", 3);
    const middle = wait("middle", 1);
    wait("small", 1);
    assert.equal(bucket.delayMs(1), 6_000, "one that comes now waits for all of them");
    await clock.advance(2_999);
    assert.deepEqual(served, []);
    await clock.advance(1);
    assert.deepEqual(served, ["big"]);
    middle.leave();
    middle.leave();
    await clock.advance(1_000);
    assert.deepEqual(served, ["big", "middle left", "small"]);
    assert.equal(clock.pending, 0);
  });

  test("what is larger than the bucket takes a full one, and leaves a debt", async () => {
    using clock = new FakeClock();
    const bucket = new Bucket({ perSecond: 10, burst: 10 });
    assert.equal(bucket.delayMs(25), 0);
    bucket.take(25);
    assert.equal(bucket.delayMs(1), 1_600);
    bucket.give(15);
    assert.equal(bucket.delayMs(1), 100);
    bucket.give(-5);
    const { served } = bucket.wait(5);
    await clock.advance(1_000);
    assert.equal(await served, true);
  });

  test("a new rate keeps what is in it, and wakes those who can go now", async () => {
    using clock = new FakeClock();
    const bucket = new Bucket({ perSecond: 0.001, burst: 10 });
    bucket.take(8);
    bucket.configure({ perSecond: 0.001, burst: 5 });
    assert.equal(bucket.level, 2);
    const { served } = bucket.wait(4);
    bucket.configure({ perSecond: 2, burst: 5 });
    await clock.advance(1_000);
    assert.equal(await served, true);
  });
});

describe("refusing", () => {
  test("beyond the burst it is 429 in the client's shape, with the seconds until there is room", async () => {
    using clock = new FakeClock();
    await using plugin = await running({ default_rate: 0.1, default_burst: 2 });
    assert.deepEqual([status(await plugin.ask()), status(await plugin.ask())], [200, 200]);
    const anthropic = await plugin.ask();
    assert.deepEqual([anthropic.reply.status, anthropic.upstream.length], [429, 0]);
    assert.deepEqual([anthropic.outcome.kind, anthropic.outcome.code], ["refused", "TM_RATE_LIMITED"]);
    assert.equal(headerValue(anthropic.reply.headers, "retry-after"), "10");
    const { type, error } = JSON.parse(String(anthropic.reply.body));
    assert.deepEqual(
      [type, error.type, error.details.error_code],
      ["error", "rate_limit_error", "TM_RATE_LIMITED"],
    );
    const openai = await plugin.ask(OK, { path: "/v1/chat/completions" });
    assert.equal(JSON.parse(String(openai.reply.body)).error.code, "TM_RATE_LIMITED");
    await clock.advance(9_999);
    const late = await plugin.ask();
    assert.equal(headerValue(late.reply.headers, "retry-after"), "1", "never 0");
    await clock.advance(1);
    assert.equal(status(await plugin.ask()), 200);
  });

  test("a clock that is set back or forth changes nothing", async () => {
    using clock = new FakeClock();
    await using plugin = await running({ default_rate: 1, default_burst: 1 });
    assert.equal(status(await plugin.ask()), 200);
    for (const jump of [86_400_000, -2 * 86_400_000]) {
      clock.jump(jump);
      assert.equal(status(await plugin.ask()), 429);
    }
    await clock.advance(1_000);
    assert.equal(status(await plugin.ask()), 200);
  });

  test("another provider is asked instead, by its own limit", async () => {
    using _clock = new FakeClock();
    await using plugin = await running(
      { default_rate: 1, default_burst: 1, provider_limits: { second: { burst: 2 } } },
      { providers: ["first", "second"] },
    );
    const asked: (string | undefined)[] = [];
    for (let count = 0; count < 4; count++) asked.push((await plugin.ask()).upstream[0]?.provider);
    assert.deepEqual(asked, ["first", "second", "second", undefined]);
  });

  test("models and projects have limits beside the provider's", async () => {
    using _clock = new FakeClock();
    await using plugin = await running(
      {
        default_burst: 100,
        models: { "big-*": { rate: 1, burst: 1 } },
        project_limit: { requests_per_minute: 60, burst: 3 },
      },
      {
        file: {
          projects: { loud: { security: { rate_limit: { provider_limits: { upstream: { burst: 1 } } } } } },
        },
      },
    );
    const codes = async (count: number, more: { model?: string; project?: string }) => {
      const seen: number[] = [];
      for (let each = 0; each < count; each++) seen.push(status(await plugin.ask(OK, more)));
      return seen;
    };
    assert.deepEqual(await codes(2, { model: "big-one" }), [200, 429]);
    assert.deepEqual(await codes(3, { model: "small" }), [200, 200, 429], "the project's three");
    assert.deepEqual(await codes(4, { model: "small", project: "other" }), [200, 200, 200, 429]);
    assert.deepEqual(await codes(2, { model: "small", project: "loud" }), [200, 429]);
  });

  test("tokens are counted as an estimate first, and as billed in the end", async () => {
    using clock = new FakeClock();
    await using plugin = await running({
      provider_limits: { upstream: { rate: 1_000, burst: 1_000, tokens_per_minute: 600 } },
    });
    const bill = (usage: object): ReplyInit => ({
      ...OK,
      body: JSON.stringify({ type: "message", model: "m", content: [], stop_reason: "end_turn", usage }),
    });
    // 600 are there; 900 are used, of which the cache's do not count: 300 are owed.
    const usage = { input_tokens: 500, output_tokens: 400, cache_read_input_tokens: 5_000 };
    assert.equal(status(await plugin.ask(bill(usage))), 200);
    const refused = await plugin.ask();
    assert.equal(refused.reply.status, 429);
    assert.equal(JSON.parse(String(refused.reply.body)).error.unit, "tokens");
    const seconds = Number(headerValue(refused.reply.headers, "retry-after"));
    assert.ok(seconds > 30 && seconds < 40, String(seconds));
    assert.equal(status(await plugin.ask(OK, { path: "/v1/messages/count_tokens" })), 200, "it uses none");
    await clock.advance(seconds * 1_000);
    // What failed gives its tokens back.
    assert.equal(status(await plugin.ask({ status: 500, body: "" })), 500);
    assert.equal(status(await plugin.ask(bill({ input_tokens: 1, output_tokens: 1 }))), 200);
  });
});

describe("waiting", () => {
  test("in the order of arrival, as long as max_wait; beyond it they are refused at once", async () => {
    using clock = new FakeClock();
    await using plugin = await running({ default_rate: 1, default_burst: 1, mode: "wait", max_wait: 3 });
    const order: number[] = [];
    const asked = Array.from({ length: 6 }, (_, index) =>
      plugin.ask(() => {
        order.push(index);
        return OK;
      }),
    );
    await clock.settle();
    assert.deepEqual(order, [0]);
    await clock.advance(1_000);
    assert.deepEqual(order, [0, 1]);
    await clock.advance(2_000);
    assert.deepEqual(order, [0, 1, 2, 3]);
    assert.deepEqual((await Promise.all(asked)).map(status), [200, 200, 200, 200, 429, 429]);
  });

  test("for longer than a hook may take", async () => {
    using clock = new FakeClock();
    await using plugin = await running({ default_rate: 0.02, default_burst: 1, mode: "wait", max_wait: 60 });
    await plugin.ask();
    const second = plugin.ask();
    await clock.advance(50_000);
    assert.equal(status(await second), 200);
  });

  test("one that leaves makes room for those behind it", async () => {
    await using upstream = await recordingUpstream();
    const config = `${providersAt(upstream.url)}[security.rate_limit]
enabled = true
default_rate = 0.05
default_burst = 1
mode = "wait"
max_wait = 30
`;
    await using kernel = await startTokenman({ config });
    const headers = ["Content-Type", "application/json", "x-api-key", "k"];
    const body = JSON.stringify(BODY);
    const url = `${kernel.proxy}/v1/messages`;
    assert.equal((await sendRequest(url, { headers, body })).status, 200);
    // It waits for 20 s, a further one would for 40.
    const leaving = new AbortController();
    const waiting = sendRequest(url, { headers, body, signal: leaving.signal });
    while (kernel.status().activeExchanges < 1) await new Promise(setImmediate);
    assert.equal((await sendRequest(url, { headers, body })).status, 429);
    leaving.abort();
    await assert.rejects(waiting);
    while (kernel.status().activeExchanges > 0) await new Promise(setImmediate);
    const next = new AbortController();
    const last = sendRequest(url, { headers, body, signal: next.signal });
    while (kernel.status().activeExchanges < 1) await new Promise(setImmediate);
    next.abort();
    await assert.rejects(last);
    assert.equal(upstream.requests.length, 1);
  });
});

test("a reload brings new rates, keeps what is in the buckets, and wakes those who wait", async () => {
  await using upstream = await recordingUpstream();
  const section = (rate: number, burst: number) => `[security.rate_limit]
enabled = true
default_rate = ${rate}
default_burst = ${burst}
mode = "wait"
max_wait = 600
`;
  await using kernel = await startTokenman({ config: providersAt(upstream.url) + section(0.01, 1) });
  const ask = () =>
    sendRequest(`${kernel.proxy}/v1/messages`, {
      headers: ["Content-Type", "application/json", "x-api-key", "k"],
      body: JSON.stringify(BODY),
    });
  assert.equal((await ask()).status, 200);
  const waiting = ask();
  while (kernel.status().activeExchanges < 1) await new Promise(setImmediate);
  const text = readFileSync(kernel.configFile, "utf8");
  writeFileSync(kernel.configFile, text.replace("default_rate = 0.01", "default_rate = 100"));
  assert.equal((await kernel.reload("the test says so")).ok, true);
  assert.equal((await waiting).status, 200);
  assert.equal(upstream.requests.length, 2);
});

describe("what the provider says", () => {
  const now = Date.parse("2026-06-15T12:00:00Z");
  test("is read in both vendors' words, clamped, and left out where it is nonsense", () => {
    const read = (code: number, ...headers: string[]) => adviceOf(code, headers, now);
    assert.deepEqual(
      read(
        200,
        ...[
          "anthropic-ratelimit-requests-remaining",
          "49",
          "anthropic-ratelimit-requests-reset",
          "2026-06-15T12:00:30Z",
        ],
        ...[
          "anthropic-ratelimit-input-tokens-remaining",
          "9000",
          "anthropic-ratelimit-input-tokens-reset",
          "2026-06-15T12:00:10Z",
        ],
        ...[
          "anthropic-ratelimit-output-tokens-remaining",
          "800",
          "anthropic-ratelimit-output-tokens-reset",
          "2026-06-15T12:00:05Z",
        ],
      ),
      {
        pauseMs: undefined,
        requests: { remaining: 49, resetMs: 30_000 },
        tokens: { remaining: 800, resetMs: 5_000 },
      },
    );
    assert.deepEqual(
      read(
        200,
        ...["x-ratelimit-remaining-requests", "0", "x-ratelimit-reset-requests", "6m0s"],
        ...["X-RateLimit-Remaining-Tokens", "12", "X-RateLimit-Reset-Tokens", "120ms"],
      ),
      {
        pauseMs: undefined,
        requests: { remaining: 0, resetMs: 360_000 },
        tokens: { remaining: 12, resetMs: 120 },
      },
    );
    assert.equal(read(429, "Retry-After", "7").pauseMs, 7_000);
    assert.equal(read(429, "retry-after", "7", "retry-after-ms", "250").pauseMs, 250);
    assert.equal(read(503, "retry-after", "Mon, 15 Jun 2026 12:00:20 GMT").pauseMs, 20_000);
    assert.equal(read(429, "retry-after", "Mon, 15 Jun 2020 12:00:20 GMT").pauseMs, 0, "past");
    assert.equal(read(429, "retry-after", "99999999999").pauseMs, 900_000, "absurd");
    assert.equal(read(200, "retry-after", "7").pauseMs, undefined, "not asked to be left alone");
    for (const nonsense of ["soon", "-1", "1e400", "", "x".repeat(10_000), "NaN"])
      assert.equal(read(429, "retry-after", nonsense).pauseMs, undefined, nonsense.slice(0, 10));
    assert.equal(
      read(200, "x-ratelimit-remaining-requests", "many", "x-ratelimit-reset-requests", "1s").requests,
      undefined,
    );
    assert.equal(
      read(200, "x-ratelimit-remaining-requests", "0").requests,
      undefined,
      "until when is not said",
    );
  });

  test("holds back that account alone, until the time is over", async () => {
    using clock = new FakeClock({ now });
    await using plugin = await running({ adaptive: true });
    const other = (key: string, answer: ReplyInit = OK) =>
      plugin.run.send(
        { path: "/v1/messages", body: BODY, headers: ["Content-Type", "application/json", "x-api-key", key] },
        answer,
      );
    const busy: ReplyInit = { status: 429, headers: ["Retry-After", "30"], body: "{}" };
    assert.equal(status(await other("one", busy)), 429);
    const held = await other("one");
    assert.equal(held.outcome.code, "TM_RATE_LIMITED");
    assert.equal(held.upstream.length, 0);
    assert.equal(headerValue(held.reply.headers, "retry-after"), "30");
    assert.equal(status(await other("two")), 200);
    await clock.advance(30_000);
    const left: ReplyInit = {
      ...OK,
      headers: [
        "anthropic-ratelimit-requests-remaining",
        "2",
        "anthropic-ratelimit-requests-reset",
        "2026-06-15T12:01:30Z",
      ],
    };
    assert.equal(status(await other("one", left)), 200);
    assert.deepEqual(
      [status(await other("one")), status(await other("one")), status(await other("one"))],
      [200, 200, 429],
    );
    await clock.advance(60_000);
    assert.equal(status(await other("one")), 200);
  });

  test("is not heeded unless asked for", async () => {
    using _clock = new FakeClock({ now });
    await using plugin = await running({});
    assert.equal(status(await plugin.ask({ status: 429, headers: ["Retry-After", "30"], body: "{}" })), 429);
    assert.equal((await plugin.ask()).upstream.length, 1);
  });

  test("is waited for", async () => {
    using clock = new FakeClock({ now });
    await using plugin = await running({ adaptive: true, mode: "wait", max_wait: 40 });
    await plugin.ask({ status: 529, headers: ["Retry-After", "30"], body: "{}" });
    const sent = gate();
    const waiting = plugin.ask(() => {
      sent.open();
      return OK;
    });
    await clock.advance(30_000);
    await sent.opened;
    assert.equal(status(await waiting), 200);
  });
});

test("nonsense in the config is refused", () => {
  for (const wrong of [
    { default_rate: 0 },
    { default_burst: 1.5 },
    { provider_limits: { a: -1 } },
    { provider_limits: { a: { rate: 1, brust: 2 } } },
    { mode: "queue" },
    { max_wait: -1 },
    { max_wait: 1e9 },
    { models: { "": 1 } },
  ])
    assert.equal(rateLimitSchema.safeParse(wrong).success, false, JSON.stringify(wrong));
});

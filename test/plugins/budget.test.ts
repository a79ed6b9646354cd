import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { headerValue, type ReplyInit, type Tokenizer } from "@tokenman/plugin-sdk";
import {
  type Answer,
  errorEvent,
  FakeClock,
  gate,
  type Sent,
  textEvents,
} from "@tokenman/plugin-sdk/testkit";
import { limitsOf } from "../../plugins/budget/limits.ts";
import { Outputs } from "../../plugins/budget/outputs.ts";
import { budgetSchema } from "../../plugins/budget/schema.ts";
import { bill, running } from "../support/budget-world.ts";
import { pricing } from "../support/pricing.ts";

const BILLED = 100 * 1_000 + 10 * 10_000;

function errorOf(sent: Sent): Record<string, unknown> {
  return JSON.parse(String(sent.reply.body)).error;
}

describe("limits", () => {
  const parse = (config: unknown) => budgetSchema.parse(config);
  test("what a project's overlay sets anew is its own, beside what holds for all", () => {
    const base = parse({ enabled: true, daily_limit: 10, providers: { a: { hourly_limit: 1 } } });
    assert.deepEqual(limitsOf(base, base), [
      { kind: "total", name: "", period: "daily", nanoUsd: 10e9, ofProject: false },
      { kind: "provider", name: "a", period: "hourly", nanoUsd: 1e9, ofProject: false },
    ]);
    const overlaid = parse({ enabled: true, daily_limit: 2, providers: { a: { hourly_limit: 1 } } });
    assert.deepEqual(
      limitsOf(base, overlaid).filter(({ ofProject }) => ofProject),
      [{ kind: "total", name: "", period: "daily", nanoUsd: 2e9, ofProject: true }],
    );
    const off = { ...base, enabled: false };
    assert.ok(limitsOf(off, base).every(({ ofProject }) => ofProject));
  });
  test("nonsense in the config is refused", () => {
    for (const wrong of [
      { daily_limit: -1 },
      { daily_limit: Number.NaN },
      { daily_limit: "5" },
      { alert_thresholds: [101] },
      { time_zone: "Nowhere" },
      { reserve: "some" },
      { webhook: "http://example.com/x" },
      { webhook: "ftp://localhost/" },
      { models: { "gpt-*": { daily: 1 } } },
    ])
      assert.equal(budgetSchema.safeParse(wrong).success, false, JSON.stringify(wrong));
    assert.equal(budgetSchema.safeParse({ webhook: "http://127.0.0.1:9/x" }).success, true);
    assert.equal(budgetSchema.safeParse({ webhook: "https://example.com/x" }).success, true);
  });
});

test("the expected output covers four of five of a model's last replies", () => {
  const outputs = new Outputs();
  assert.equal(outputs.expected("m"), undefined);
  for (let tokens = 1; tokens <= 10; tokens++) outputs.learn("m", tokens * 100);
  assert.equal(outputs.expected("m"), 800);
  for (let reply = 0; reply < 64; reply++) outputs.learn("m", 5);
  assert.equal(outputs.expected("m"), 5, "what is long ago is forgotten");
});

test("a request is sent once its cost is reserved, and settled with what it did cost", async () => {
  await using plugin = await running({ daily_limit: 1, hourly_limit: 0.5 });
  const committed = gate();
  plugin.ledger.commit = committed.opened;
  const sent = plugin.ask({}, bill(100, 10));
  await new Promise(setImmediate);
  assert.equal(plugin.ledger.reservations.size, 0);
  committed.open();
  const { reply, exchange, upstream } = await sent;
  assert.equal(reply.status, 200);
  assert.equal(upstream.length, 1);
  const { reservation } = plugin.ledger.reservations.get(exchange.id)!;
  const bytes = exchange.request.body!.length;
  // Bytes by four at the price of input, and the client's own maximum of output, being less than what is assumed.
  assert.equal(reservation.nanoUsd, Math.ceil(bytes / 4) * 1_000 + 100 * 10_000);
  assert.deepEqual(await plugin.spent(), { "total hourly": BILLED, "total daily": BILLED });
});

test("a long request holds a bound where the limit is far, and is counted where it is near", async () => {
  let counted = 0;
  const tokenizer: Tokenizer = {
    estimate: async () => {
      counted++;
      return { tokens: 5_000, uncorrected: 5_000, error: undefined };
    },
    count: async (_model, texts) => texts.map(() => 1),
    learn() {},
  };
  const long = { messages: [{ role: "user", content: "word ".repeat(4_000) }] };
  await using plugin = await running({ daily_limit: 0.3 }, {}, { tokenizer });
  const held = async (answer = bill(100, 10)): Promise<readonly [nanoUsd: number, bytes: number]> => {
    const { exchange, reply } = await plugin.ask(long, answer);
    assert.equal(reply.status, 200);
    const ids = [`${exchange.id}~`, exchange.id];
    const id = ids.find((each) => plugin.ledger.reservations.has(each))!;
    return [plugin.ledger.reservations.get(id)!.reservation.nanoUsd, exchange.request.body!.length];
  };
  const output = 100 * 10_000;
  assert.deepEqual(await held().then(([nanoUsd]) => nanoUsd), 5_000 * 1_000 + output);
  assert.equal(counted, 1, "nothing is known of the window yet");
  const [bound, bytes] = await held();
  assert.equal(bound, bytes * 1_000 + Math.min(100, 10) * 10_000, "a token for each byte");
  assert.equal(counted, 1);
  // What nobody bills is counted after all.
  const unbilled = { status: 200, headers: ["Content-Type", "application/json"], body: "{}" };
  await held(unbilled);
  assert.equal(counted, 2);
  assert.deepEqual(await plugin.spent(), { "total daily": 2 * BILLED + 5_000 * 1_000 + 10 * 10_000 });
  // Of two at once one holds a bound, and the other one is counted: bounds may hold a tenth of the limit.
  const open = gate<ReplyInit>();
  const both = [plugin.ask(long, () => open.opened), plugin.ask(long, () => open.opened)];
  await new Promise(setImmediate);
  open.open(bill(100, 10));
  await Promise.all(both);
  assert.equal(counted, 3);
  // More than half is used.
  await plugin.ask({}, bill(0, 15_000));
  await held();
  assert.equal(counted, 4);
});

test("a bound that finds no room, since others were faster, is counted and asked for again", async () => {
  const tokenizer: Tokenizer = {
    estimate: async () => ({ tokens: 5_000, uncorrected: 5_000, error: undefined }),
    count: async (_model, texts) => texts.map(() => 1),
    learn() {},
  };
  await using plugin = await running({ daily_limit: 0.3 }, {}, { tokenizer });
  await plugin.ask();
  const window = [...plugin.ledger.reservations.values()][0]!.reservation.windows[0]!;
  const other = { id: "other", exchangeId: "other", at: Date.now(), nanoUsd: 280_000_000, windows: [window] };
  assert.equal((await plugin.ledger.reserve(other)).ok, true);
  const long = { messages: [{ role: "user", content: "word ".repeat(4_000) }] };
  const { reply, exchange } = await plugin.ask(long);
  assert.equal(reply.status, 200);
  assert.equal(
    plugin.ledger.reservations.get(`${exchange.id}~`)?.reservation.nanoUsd,
    5_000 * 1_000 + 10 * 10_000,
  );
  assert.deepEqual(await plugin.spent(), { "total daily": 2 * BILLED + 280_000_000 });
  assert.ok(!plugin.run.log.some(({ message }) => /no room left/.test(message ?? "")), "nobody is alarmed");
});

test("in expectation of what the model usually gives, and at most of what the client allows", async () => {
  await using plugin = await running({ daily_limit: 1 });
  const held = async (body: Record<string, unknown>) => {
    const { exchange } = await plugin.ask(body, bill(1, 40));
    const { nanoUsd } = plugin.ledger.reservations.get(exchange.id)!.reservation;
    return (nanoUsd - Math.ceil(exchange.request.body!.length / 4) * 1_000) / 10_000;
  };
  assert.equal(await held({ max_tokens: 8_000 }), 2_048, "nothing is known yet");
  assert.equal(await held({ max_tokens: 8_000 }), 40);
  assert.equal(await held({ max_tokens: 30 }), 30);
});

test("at the most that can be asked for: cache writes, several answers, the whole output", async () => {
  await using plugin = await running({ daily_limit: 100, reserve: "max" });
  const { exchange } = await plugin.ask({ max_tokens: 8_000, n: 3 });
  const { nanoUsd } = plugin.ledger.reservations.get(exchange.id)!.reservation;
  assert.equal(nanoUsd, Math.ceil(exchange.request.body!.length / 4) * 1_000 + 3 * 8_000 * 10_000);
});

test("a service tier or speed that is asked for is reserved at its price, or at the dearest that is known", async () => {
  // The vendors' own prices: USD for a million tokens of output.
  const catalogue = await pricing();
  await using plugin = await running({ daily_limit: 100, reserve: "max" }, {}, { pricing: catalogue });
  const output = async (model: string, more: Record<string, unknown>, path = "/v1/messages") => {
    const { exchange } = await plugin.ask({ model, max_tokens: 100_000, ...more }, bill(1, 1), { path });
    const { nanoUsd } = plugin.ledger.reservations.get(exchange.id)!.reservation;
    // The input is a few tokens.
    return Math.floor(nanoUsd / 100_000 / 1_000);
  };
  const chat = "/v1/chat/completions";
  assert.equal(await output("gpt-5.1", {}, chat), 10);
  assert.equal(await output("gpt-5.1", { service_tier: "priority" }, chat), 20);
  assert.equal(await output("gpt-5.1", { service_tier: "flex" }, chat), 10, "it may be served as usual");
  assert.equal(await output("gpt-5.1", { service_tier: "unheard-of" }, chat), 20);
  assert.equal(await output("claude-opus-4-6", {}), 25);
  assert.equal(await output("claude-opus-4-6", { speed: "fast" }), 150);
  assert.equal(await output("claude-opus-4-6", { service_tier: "priority" }), 150, "nobody knows its price");
});

for (const [path, dialect, hasCode] of [
  [
    "/v1/messages",
    "anthropic",
    (error: Record<string, unknown>) => (error["details"] as { error_code: string }).error_code,
  ],
  ["/v1/chat/completions", "openai", (error: Record<string, unknown>) => error["code"]],
] as const)
  test(`a refusal is a 429 in the shape of ${dialect}, until the window ends`, async () => {
    using clock = new FakeClock({ now: Date.parse("2026-06-15T22:15:00Z") });
    await using plugin = await running({ daily_limit: 0.0015, time_zone: "Europe/Berlin", reserve: "max" });
    // The first costs 0.0002 in the end; while it runs there is no room for another.
    const { reply, upstream, outcome } = await plugin
      .ask({}, bill(100, 90))
      .then(() => plugin.ask({}, undefined, { path }));
    assert.equal(reply.status, 429);
    assert.equal(upstream.length, 0);
    assert.deepEqual([outcome.kind, outcome.code], ["refused", "TM_BUDGET_EXCEEDED"]);
    const error = JSON.parse(String(reply.body)).error;
    assert.equal(hasCode(error), "TM_BUDGET_EXCEEDED");
    assert.equal(error.type, "rate_limit_error");
    assert.deepEqual(
      {
        scope: error.scope,
        period: error.period,
        limit: error.limit,
        spent: error.spent,
        reserved: error.reserved,
        resets_at: error.resets_at,
      },
      {
        scope: "total",
        period: "daily",
        limit: 0.0015,
        spent: 0.001,
        reserved: 0,
        resets_at: "2026-06-16T22:00:00.000Z",
      },
    );
    assert.equal(headerValue(reply.headers, "retry-after"), String(23 * 3_600 + 45 * 60));
    assert.equal(headerValue(reply.headers, "x-should-retry"), "false");
    // A new day, and there is room again.
    await clock.advance(23 * 3_600_000 + 45 * 60_000);
    assert.equal((await plugin.ask()).reply.status, 200);
  });

test("fault 30: a clock that jumps un-spends nothing", async () => {
  using clock = new FakeClock({ now: Date.parse("2026-06-15T12:00:00Z") });
  await using plugin = await running({ daily_limit: 0.0015, reserve: "max" });
  assert.equal((await plugin.ask({}, bill(100, 90))).reply.status, 200);
  assert.equal((await plugin.ask()).reply.status, 429);
  clock.jump(-3_600_000);
  assert.equal((await plugin.ask()).reply.status, 429, "an hour earlier it is the same day");
  clock.jump(86_400_000);
  const open = gate<{ status: number }>();
  const late = plugin.ask({}, async () => open.opened);
  await clock.settle();
  clock.jump(-86_400_000 + 3_600_000);
  open.open({ status: 500 });
  await late;
  assert.equal((await plugin.ask()).reply.status, 429, "back again, it is still spent");
  for (const used of Object.values(await plugin.spent())) assert.ok(used >= 0);
});

test("what was not billed costs nothing, and what nobody billed costs what was expected", async () => {
  await using plugin = await running({ daily_limit: 1 });
  assert.equal((await plugin.ask({}, { status: 500, body: "no" })).reply.status, 500);
  assert.deepEqual(await plugin.spent(), { "total daily": 0 });
  const { exchange } = await plugin.ask(
    {},
    { status: 200, headers: ["Content-Type", "application/json"], body: "{}" },
  );
  assert.deepEqual(await plugin.spent(), {
    "total daily": plugin.ledger.reservations.get(exchange.id)!.reservation.nanoUsd,
  });
});

test("a stream that an error takes the place of costs nothing; one that an error ends does", async () => {
  await using plugin = await running({ daily_limit: 1, providers: { upstream: { daily_limit: 1 } } });
  const stream = (...events: Buffer[]): ReplyInit => ({
    status: 200,
    headers: ["Content-Type", "text/event-stream"],
    body: Buffer.concat(events),
  });
  const error = errorEvent("openai-chat");
  const path = "/v1/chat/completions";
  await plugin.ask({ stream: true }, stream(Buffer.from(": wait\n\n"), error), { path });
  assert.deepEqual(await plugin.spent(), { "total daily": 0, "provider:upstream daily": 0 });
  const [first] = textEvents("openai-chat", ["some words"]);
  const { exchange } = await plugin.ask({ stream: true }, stream(first!, error), { path });
  const { nanoUsd } = plugin.ledger.reservations.get(exchange.id)!.reservation;
  assert.deepEqual(await plugin.spent(), { "total daily": nanoUsd, "provider:upstream daily": nanoUsd });
});

test("where one provider's budget has no room the next one is asked, and the last one refuses", async () => {
  await using plugin = await running(
    { reserve: "max", providers: { first: { daily_limit: 0.0015 }, second: { monthly_limit: 0.0015 } } },
    { providers: ["first", "second"] },
  );
  const tried: string[] = [];
  const answer: Answer = (request) => {
    tried.push(request.provider);
    return bill(100, 90);
  };
  await plugin.ask({}, answer);
  await plugin.ask({}, answer);
  assert.deepEqual(tried, ["first", "second"]);
  const third = await plugin.ask({}, answer);
  assert.equal(third.reply.status, 429);
  const error = errorOf(third);
  assert.deepEqual([error["scope"], error["period"]], ["provider:second", "monthly"]);
  assert.deepEqual(
    third.exchange.attempts.map(({ result }) => result?.kind),
    ["skipped", "skipped"],
  );
  assert.deepEqual(tried, ["first", "second"]);
  assert.deepEqual(await plugin.spent(), {
    "provider:first daily": 1_000_000,
    "provider:second monthly": 1_000_000,
  });
});

test("limits of models are for those that their glob describes", async () => {
  await using plugin = await running({ models: { "pri*": { daily_limit: 0.005 } }, reserve: "max" });
  assert.equal((await plugin.ask({ model: "plain" })).reply.status, 200);
  const refused = await plugin.ask({ model: "pricey" });
  assert.equal(refused.reply.status, 429);
  assert.equal(errorOf(refused)["scope"], "model:pri*");
});

test("a project has its own limit beside that of all", async () => {
  await using plugin = await running(
    { daily_limit: 0.0035, reserve: "max" },
    { file: { projects: { small: { security: { budget: { daily_limit: 0.0015 } } } } } },
  );
  const dear = bill(100, 90);
  assert.equal((await plugin.ask({}, dear, { project: "small" })).reply.status, 200);
  const own = await plugin.ask({}, dear, { project: "small" });
  assert.equal(errorOf(own)["scope"], "project:small");
  assert.equal((await plugin.ask({}, dear, { project: "other" })).reply.status, 200);
  assert.equal((await plugin.ask({}, dear, { project: "other" })).reply.status, 200);
  assert.equal(errorOf(await plugin.ask({}, dear, { project: "other" }))["scope"], "total");
  assert.deepEqual(await plugin.spent(), { "total daily": 3_000_000, "project:small daily": 1_000_000 });
});

test("what has no price is let through and said once, or blocked", async () => {
  {
    await using plugin = await running({ daily_limit: 0.0000001 });
    for (let time = 0; time < 3; time++)
      assert.equal((await plugin.ask({ model: "unheard-of" })).reply.status, 200);
    assert.equal((await plugin.ask({ model: "another" })).reply.status, 200);
    const said = plugin.run.log.filter(({ message }) => /no known price/.test(message ?? ""));
    assert.equal(said.length, 2);
  }
  await using plugin = await running({ daily_limit: 1, unpriced: "block" });
  const blocked = await plugin.ask({ model: "unheard-of" });
  assert.equal(blocked.reply.status, 403);
  assert.equal(blocked.outcome.code, "TM_BUDGET_UNPRICED");
  assert.equal((await plugin.ask({}, undefined, { path: "/v1/batches" })).reply.status, 403);
  assert.equal(
    (await plugin.ask({}, undefined, { path: "/v1/messages/count_tokens" })).reply.status,
    200,
    "costs nothing",
  );
});

test("nothing is sent where the ledger cannot commit, and settlements wait for it", async () => {
  using clock = new FakeClock();
  await using plugin = await running({ daily_limit: 1 });
  plugin.ledger.failing = "the disk is full";
  for (let time = 0; time < 12; time++) {
    const { reply, upstream, outcome } = await plugin.ask();
    assert.deepEqual([reply.status, outcome.code, upstream.length], [503, "TM_BUDGET_UNAVAILABLE", 0]);
  }
  plugin.ledger.failing = undefined;
  const { reply } = await plugin.ask({}, () => {
    plugin.ledger.failing = "full again";
    return bill(100, 10);
  });
  assert.equal(reply.status, 200);
  plugin.ledger.failing = undefined;
  await clock.advance(5_000);
  assert.deepEqual(await plugin.spent(), { "total daily": BILLED });
});

test("a ledger that does not answer refuses in time, and what it grants later is given back", async () => {
  using clock = new FakeClock();
  await using plugin = await running({ daily_limit: 1 });
  const commit = gate();
  plugin.ledger.commit = commit.opened;
  const waiting = plugin.ask();
  await clock.advance(5_000);
  const { outcome, upstream } = await waiting;
  assert.deepEqual([outcome.code, upstream.length], ["TM_BUDGET_UNAVAILABLE", 0]);
  commit.open();
  await clock.advance(5_000);
  assert.equal(plugin.ledger.reservations.size, 1);
  assert.deepEqual(await plugin.spent(), { "total daily": 0 });
});

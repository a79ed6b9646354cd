import assert from "node:assert/strict";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { describe, test } from "node:test";
import {
  type Alert,
  headerValue,
  type Pricing,
  type RawHeaders,
  type ReplyInit,
  type Tokenizer,
} from "@tokenman/plugin-sdk";
import {
  type Answer,
  capturedLog,
  errorEvent,
  FakeClock,
  gate,
  installHost,
  type PluginSettings,
  runPlugin,
  type Sent,
  textEvents,
} from "@tokenman/plugin-sdk/testkit";
import { testHost } from "../../cli/test-host.ts";
import { Alerts } from "../../plugins/budget/alerts.ts";
import { Calendar, isTimeZone } from "../../plugins/budget/calendar.ts";
import budget from "../../plugins/budget/index.ts";
import { limitsOf } from "../../plugins/budget/limits.ts";
import { Outputs } from "../../plugins/budget/outputs.ts";
import { budgetSchema } from "../../plugins/budget/schema.ts";
import { MemoryLedger } from "../support/memory-ledger.ts";
import { pricing } from "../support/pricing.ts";

installHost(testHost);

/** A dollar per million tokens in, ten out: 1,000 and 10,000 nano-dollars a token. `pricey` is ten times as dear. */
const prices: Pricing = await pricing({
  plain: { input: 1, output: 10 },
  pricey: { input: 10, output: 100 },
});

type Table = NonNullable<PluginSettings["config"]>;
interface Running extends AsyncDisposable {
  readonly ledger: MemoryLedger;
  ask(
    body?: Record<string, unknown>,
    answer?: Answer,
    more?: { readonly project?: string; readonly path?: string; readonly headers?: RawHeaders },
  ): Promise<Sent>;
  /** Spent in each window that was ever reserved in, by scope and period. */
  spent(): Promise<Record<string, number>>;
  readonly run: Awaited<ReturnType<typeof runPlugin>>;
}

async function running(
  config: Table,
  settings: Omit<PluginSettings, "config" | "services"> = {},
  services: { readonly tokenizer?: Tokenizer } = {},
): Promise<Running> {
  const ledger = new MemoryLedger();
  const run = await runPlugin(budget, {
    ...settings,
    config: { enabled: true, ...config },
    services: { ledger, pricing: prices, ...services },
  });
  return {
    ledger,
    run,
    ask: (body = {}, answer = bill(100, 10), more = {}) =>
      run.send(
        { path: "/v1/messages", body: { model: "plain", max_tokens: 100, messages: [], ...body }, ...more },
        answer,
      ),
    async spent() {
      const found: Record<string, number> = {};
      for (const { reservation } of ledger.reservations.values())
        for (const window of reservation.windows)
          found[`${window.scope} ${window.period}`] = (await ledger.used([window]))[0]!;
      return found;
    },
    [Symbol.asyncDispose]: () => run.stop(),
  };
}

/** A reply that bills these tokens. */
function bill(input: number, output: number): ReplyInit {
  return {
    status: 200,
    headers: ["Content-Type", "application/json"],
    body: JSON.stringify({
      type: "message",
      role: "assistant",
      model: "plain",
      content: [],
      stop_reason: "end_turn",
      usage: { input_tokens: input, output_tokens: output },
    }),
  };
}
const BILLED = 100 * 1_000 + 10 * 10_000;

function errorOf(sent: Sent): Record<string, unknown> {
  return JSON.parse(String(sent.reply.body)).error;
}

describe("windows of time zones", () => {
  const at = (text: string) => Date.parse(text);
  const span = (zone: string, period: "hourly" | "daily" | "monthly", time: string) => {
    const { from, to } = new Calendar(zone).span(period, at(time));
    return [new Date(from).toISOString(), new Date(to).toISOString()];
  };
  const cases: readonly [string, "hourly" | "daily" | "monthly", string, string, string][] = [
    ["UTC", "daily", "2026-02-28T23:59:59.999Z", "2026-02-28T00:00:00.000Z", "2026-03-01T00:00:00.000Z"],
    ["UTC", "monthly", "2028-02-29T12:00:00Z", "2028-02-01T00:00:00.000Z", "2028-03-01T00:00:00.000Z"],
    // 23 hours, and 25.
    [
      "Europe/Berlin",
      "daily",
      "2026-03-29T10:00:00Z",
      "2026-03-28T23:00:00.000Z",
      "2026-03-29T22:00:00.000Z",
    ],
    [
      "Europe/Berlin",
      "daily",
      "2026-10-25T10:00:00Z",
      "2026-10-24T22:00:00.000Z",
      "2026-10-25T23:00:00.000Z",
    ],
    [
      "Europe/Berlin",
      "monthly",
      "2026-10-31T23:30:00Z",
      "2026-10-31T23:00:00.000Z",
      "2026-11-30T23:00:00.000Z",
    ],
    // The hour that comes twice is two.
    [
      "Europe/Berlin",
      "hourly",
      "2026-10-25T00:30:00Z",
      "2026-10-25T00:00:00.000Z",
      "2026-10-25T01:00:00.000Z",
    ],
    [
      "Europe/Berlin",
      "hourly",
      "2026-10-25T01:30:00Z",
      "2026-10-25T01:00:00.000Z",
      "2026-10-25T02:00:00.000Z",
    ],
    [
      "Asia/Kolkata",
      "hourly",
      "2026-05-01T10:15:00Z",
      "2026-05-01T09:30:00.000Z",
      "2026-05-01T10:30:00.000Z",
    ],
    [
      "Asia/Kathmandu",
      "daily",
      "2026-05-01T18:15:00Z",
      "2026-05-01T18:15:00.000Z",
      "2026-05-02T18:15:00.000Z",
    ],
    // Clocks go back by half an hour at 15:00 UTC: what follows is a window of its own.
    [
      "Australia/Lord_Howe",
      "hourly",
      "2026-04-04T14:45:00Z",
      "2026-04-04T14:00:00.000Z",
      "2026-04-04T15:00:00.000Z",
    ],
    [
      "Australia/Lord_Howe",
      "hourly",
      "2026-04-04T15:10:00Z",
      "2026-04-04T15:00:00.000Z",
      "2026-04-04T15:30:00.000Z",
    ],
    // The day began at one o'clock.
    [
      "America/Sao_Paulo",
      "daily",
      "2018-11-04T12:00:00Z",
      "2018-11-04T03:00:00.000Z",
      "2018-11-05T02:00:00.000Z",
    ],
    // The last hour of the day came twice.
    [
      "America/Sao_Paulo",
      "daily",
      "2018-02-18T02:30:00Z",
      "2018-02-17T02:00:00.000Z",
      "2018-02-18T03:00:00.000Z",
    ],
    // There was no 30th of December.
    ["Pacific/Apia", "daily", "2011-12-30T09:00:00Z", "2011-12-29T10:00:00.000Z", "2011-12-30T10:00:00.000Z"],
    ["Pacific/Apia", "daily", "2011-12-30T11:00:00Z", "2011-12-30T10:00:00.000Z", "2011-12-31T10:00:00.000Z"],
  ];
  for (const [zone, period, time, from, to] of cases)
    test(`${period} in ${zone} at ${time}`, () => assert.deepEqual(span(zone, period, time), [from, to]));

  test("every instant is in exactly one window, which follows the one before", () => {
    for (const zone of [
      "Europe/Berlin",
      "America/St_Johns",
      "Australia/Lord_Howe",
      "Africa/Cairo",
      "Asia/Gaza",
    ])
      for (const period of ["hourly", "daily", "monthly"] as const) {
        const calendar = new Calendar(zone);
        let next = calendar.span(period, at("2026-03-20T00:00:00Z"));
        const until = at(period === "hourly" ? "2026-04-10T00:00:00Z" : "2027-12-01T00:00:00Z");
        while (next.from < until) {
          for (const inside of [next.from, Math.floor((next.from + next.to) / 2), next.to - 1])
            assert.deepEqual(new Calendar(zone).span(period, inside), next, `${zone} ${period}`);
          const { to } = next;
          next = calendar.span(period, to);
          assert.equal(next.from, to);
          if (
            period === "hourly" &&
            next.from > at("2026-03-22T00:00:00Z") &&
            next.from < at("2026-03-28T00:00:00Z")
          )
            next = calendar.span(period, at("2026-03-28T12:00:00Z"));
        }
      }
  });

  test("an absurd clock is clamped, and nonsense is no zone", () => {
    for (const time of [8.64e15, -8.64e15, Number.MAX_VALUE]) {
      const { from, to } = new Calendar("Europe/Berlin").span("monthly", time);
      assert.ok(Number.isFinite(from) && to > from);
    }
    assert.deepEqual(["Europe/Berlin", "UTC", "", "Mars/Olympus", "x".repeat(5_000)].map(isTimeZone), [
      true,
      true,
      false,
      false,
      false,
    ]);
  });
});

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

test("a clock that jumps un-spends nothing", async () => {
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

test("alerts are raised once for each threshold, in the log, to sinks and to the webhook", async () => {
  const posted: Alert[] = [];
  const arrived = gate();
  const server = http.createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      posted.push(JSON.parse(String(Buffer.concat(chunks))));
      response.end();
      if (posted.length === 3) arrived.open();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const { port } = server.address() as AddressInfo;
    await using plugin = await running({
      hourly_limit: 0.002,
      alert_thresholds: [40, 50, 75],
      reserve: "max",
      webhook: `http://127.0.0.1:${port}/alerts`,
    });
    await plugin.ask({}, bill(0, 85));
    for (let time = 0; time < 5; time++) await plugin.ask({}, bill(0, 15));
    await plugin.ask({ max_tokens: 90 });
    await plugin.ask({ max_tokens: 90 });
    await arrived.opened;
    const warned = plugin.run.log.filter(({ level }) => level === "warn");
    assert.deepEqual(
      warned.map(({ message }) => message?.replace(/until .*/, "until …")),
      [
        "40 % of the hourly budget (total) of $0.002 are spent: $0.00085",
        "50 % of the hourly budget (total) of $0.002 are spent: $0.001",
        "the hourly budget (total) of $0.002 has no room left: requests are refused, until …",
      ],
    );
    assert.deepEqual(
      posted.map(({ message }) => message).toSorted(),
      warned.map(({ message }) => message).toSorted(),
    );
    const half = posted.find(({ facts }) => facts["percent"] === 50)!;
    assert.equal(half.kind, "budget");
    assert.equal(half.facts["spent"], 0.001);
  } finally {
    server.close();
  }
});

test("alerts reach every sink, whatever another one or the webhook does", async () => {
  const seen: Alert[] = [];
  const log = capturedLog();
  const sinks = [
    {
      name: "broken",
      alert() {
        throw new Error("no");
      },
    },
    { name: "feed", alert: (alert: Alert) => void seen.push(alert) },
  ];
  // Nobody listens on a port that was just given back.
  const server = http.createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  const alerts = new Alerts({
    log,
    registry: { all: () => sinks as never },
    webhook: `http://127.0.0.1:${port}/secret-path`,
  });
  const window = { scope: "total", period: "daily", from: 0, to: 86_400_000, limitNanoUsd: 5e9 } as const;
  alerts.passed(window, 75, 4e9);
  assert.deepEqual(
    seen.map(({ kind, message, facts }) => ({ kind, message, facts })),
    [
      {
        kind: "budget",
        message: "75 % of the daily budget (total) of $5.00 are spent: $4.00",
        facts: {
          scope: "total",
          period: "daily",
          limit: 5,
          resets_at: "1970-01-02T00:00:00.000Z",
          percent: 75,
          spent: 4,
        },
      },
    ],
  );
  await alerts.close();
  assert.equal(log.lines.at(-1)!.message, "the budget's webhook was not reached");
  assert.ok(!JSON.stringify(log.lines).includes("secret-path"));
});

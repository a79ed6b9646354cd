import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { headerValue, type ReplyInit, retryAfterMs } from "@tokenman/plugin-sdk";
import { errorReply, FakeClock, Random, runPlugin, type SentRequest } from "@tokenman/plugin-sdk/testkit";
import { backoffMs, waitMs } from "../../plugins/retry/backoff.ts";
import retry from "../../plugins/retry/index.ts";
import { RetryBudget } from "../../plugins/retry/retry-budget.ts";
import "../support/kernel.ts";

const REQUEST = {
  path: "/v1/messages",
  body: { model: "m", max_tokens: 9, messages: [{ role: "user", content: "hi" }] },
};
const OK: ReplyInit = { status: 200, headers: ["content-type", "application/json"], body: "{}" };
const failing = (status: number, headers: readonly string[] = []): ReplyInit =>
  errorReply("anthropic-messages", status, headers);
const capped = (code: string): ReplyInit => ({
  status: 429,
  headers: ["content-type", "application/json"],
  body: JSON.stringify({
    type: "error",
    error: { type: "rate_limit_error", message: "capped", details: { error_code: code } },
  }),
});
const RESET = Symbol("the connection fails");

/** Runs one request against providers that answer in turn; what is not listed is a 200. */
async function ask(
  replies: readonly (ReplyInit | typeof RESET)[],
  options: {
    readonly config?: Readonly<Record<string, number | readonly number[]>>;
    readonly providers?: readonly string[];
    readonly headers?: readonly string[];
    readonly path?: string;
    readonly body?: object;
  } = {},
) {
  const { providers = ["a"], headers = [], path, body = REQUEST.body } = options;
  await using run = await runPlugin(retry, {
    config: { retry_base_delay_ms: 0, ...options.config } as never,
    providers,
  });
  let number = 0;
  const { reply, upstream, outcome } = await run.send(
    {
      ...REQUEST,
      body,
      ...(path !== undefined && { path }),
      headers: ["Content-Type", "application/json", "x-api-key", "k", ...headers],
    },
    () => {
      const answer = replies[number++] ?? OK;
      if (answer === RESET) throw new Error("no connection");
      return answer;
    },
  );
  return { reply, outcome, asked: upstream.map(({ provider }) => provider) };
}

describe("the wait before another attempt", () => {
  it("is anywhere below a bound that doubles, up to the longest", () => {
    const random = new Random(7);
    for (let round = 0; round < 2_000; round++) {
      const limits = { baseMs: random.below(2_000), maxMs: random.below(60_000) };
      const failures = 1 + random.below(60);
      const wait = backoffMs(failures, limits, random.next());
      const bound = Math.min(limits.maxMs, limits.baseMs * 2 ** (failures - 1));
      assert.ok(wait >= 0 && wait <= bound, `${wait} of ${bound}`);
    }
    const limits = { baseMs: 500, maxMs: 30_000 };
    const draws = Array.from({ length: 4_000 }, () => backoffMs(3, limits, random.next()));
    assert.ok(Math.min(...draws) < 40 && Math.max(...draws) > 1_960, "the whole range is used");
    const mean = draws.reduce((sum, draw) => sum + draw, 0) / draws.length;
    assert.ok(Math.abs(mean - 1_000) < 40, `evenly: ${mean}`);
  });

  it("is not shorter than what the provider said, spread, and never above the longest", () => {
    const random = new Random(11);
    for (let round = 0; round < 2_000; round++) {
      const limits = { baseMs: random.below(2_000), maxMs: 1 + random.below(60_000) };
      const told = random.pick([1, 900, 20_000, 86_400_000, Number.POSITIVE_INFINITY]);
      const wait = waitMs(1 + random.below(5), told, limits, random.next());
      assert.ok(wait <= limits.maxMs && wait >= 0);
      if (told < limits.maxMs) assert.ok(wait >= told && wait <= told + limits.baseMs);
      else assert.ok(wait >= limits.maxMs - limits.baseMs);
    }
    assert.equal(waitMs(1, 0, { baseMs: 500, maxMs: 9_000 }, 0.5), 250, "a time that has passed is none");
  });

  it("is read from all forms of the header", () => {
    const now = Date.UTC(2026, 10, 24, 10, 0, 0);
    const read = (...headers: string[]) => retryAfterMs(headers, now);
    assert.equal(read("Retry-After", "7"), 7_000);
    assert.equal(read("retry-after", " 1.5 "), 1_500);
    assert.equal(read("Retry-After", "9", "Retry-After-Ms", "250"), 250);
    assert.equal(read("Retry-After", "9", "retry-after-ms", "soon"), 9_000);
    assert.equal(read("Retry-After", "Tue, 24 Nov 2026 10:00:20 GMT"), 20_000);
    assert.equal(read("Retry-After", "Tuesday, 24-Nov-26 10:00:20 GMT"), 20_000);
    assert.equal(read("Retry-After", "Tue Nov 24 10:00:20 2026"), 20_000);
    assert.equal(read("Retry-After", "Tue, 24 Nov 2026 09:00:00 GMT"), 0);
    assert.equal(read("Retry-After", "-3"), 0);
    assert.equal(read("Retry-After", "9".repeat(400)), Number.POSITIVE_INFINITY);
    for (const odd of ["", "soon", "1e3", "12 s", "Tue, 99 Foo 2026", "2026-11-24"])
      assert.equal(read("Retry-After", odd), undefined, odd);
    assert.equal(read("X-Other", "1"), undefined);
  });
});

describe("the retry budget", () => {
  it("allows a share of the traffic beside what comes back by itself, for each provider", () => {
    let now = 0;
    const budget = new RetryBudget(() => now);
    const taken = (provider: string, tries: number) =>
      Array.from({ length: tries }, () => budget.take(provider)).filter(Boolean).length;
    assert.equal(taken("a", 500), 100, "a burst");
    assert.equal(taken("b", 500), 100, "another provider's is its own");
    for (let request = 0; request < 300; request++) budget.sent("a", 0.2);
    assert.equal(taken("a", 500), 60, "a fifth of three hundred");
    now += 1_000;
    assert.equal(taken("a", 500), 10, "ten a second");
    now += 3_600_000;
    assert.equal(taken("a", 500), 100, "no more is saved up than the first burst");
  });

  it("keeps a storm from being multiplied", async () => {
    await using run = await runPlugin(retry, { config: { retry_base_delay_ms: 0, retry_max_attempts: 3 } });
    let dispatched = 0;
    const storm = Array.from({ length: 300 }, () =>
      run.send(REQUEST, () => {
        dispatched++;
        return failing(529);
      }),
    );
    for (const { reply } of await Promise.all(storm)) assert.equal(reply.status, 529);
    assert.ok(dispatched > 300 && dispatched < 600, `${dispatched} instead of 1200`);
  });
});

describe("after a failure", () => {
  for (const status of [408, 429, 500, 502, 503, 504, 529]) {
    it(`of status ${status} the provider is asked again`, async () => {
      const { reply, asked } = await ask([failing(status), failing(status)]);
      assert.deepEqual([reply.status, asked], [200, ["a", "a", "a"]]);
    });
  }
  for (const status of [400, 401, 403, 404, 409, 413, 422, 501]) {
    it(`of status ${status} it is not`, async () => {
      const { reply, asked } = await ask([failing(status)], { providers: ["a", "b"] });
      assert.deepEqual([reply.status, asked], [status, ["a"]]);
    });
  }

  it("another provider is preferred, at once", async () => {
    const { reply, asked } = await ask([failing(529), failing(503)], {
      providers: ["a", "b", "c"],
      config: { retry_base_delay_ms: 3_600_000 },
    });
    assert.deepEqual([reply.status, asked], [200, ["a", "b", "c"]]);
  });

  it("what came last goes to the client as it came, when the attempts are used up", async () => {
    const last = failing(529, ["retry-after", "0", "x-odd", "1"]);
    const { reply, asked } = await ask([failing(500), failing(502), failing(503), last]);
    assert.deepEqual([reply.status, asked.length], [529, 4]);
    assert.equal(headerValue(reply.headers, "x-odd"), "1");
    assert.equal(reply.body.toString(), last.body);
    assert.equal((await ask([failing(500)], { config: { retry_max_attempts: 0 } })).asked.length, 1);
  });

  it("of a spend cap or an exhausted quota, nobody is asked again", async () => {
    for (const code of ["enforced_spend_limit_reached", "contract_spend_limit_reached"]) {
      const { reply, asked } = await ask([capped(code)], { providers: ["a", "b"] });
      assert.deepEqual([reply.status, asked], [429, ["a"]]);
      assert.match(reply.body.toString(), new RegExp(code));
    }
    for (const code of ["insufficient_quota", "credit_balance_exhausted"]) {
      const body = JSON.stringify({ error: { message: "no", type: code, param: null, code } });
      const reply: ReplyInit = { status: 429, headers: ["content-type", "application/json"], body };
      assert.deepEqual((await ask([reply], { path: "/v1/chat/completions" })).asked, ["a"], code);
    }
    assert.deepEqual((await ask([failing(529, ["x-should-retry", "false"])])).asked, ["a"]);
  });

  it("the statuses are the config's", async () => {
    assert.equal((await ask([failing(500)], { config: { retry_statuses: [529] } })).asked.length, 1);
    assert.equal((await ask([failing(501)], { config: { retry_statuses: [501] } })).asked.length, 2);
  });

  it("what the provider says of trying again counts more than the status", async () => {
    const advised = (status: number, advice: string) => failing(status, ["X-Should-Retry", advice]);
    assert.deepEqual((await ask([advised(409, "true")])).asked, ["a", "a"]);
    assert.deepEqual((await ask([advised(503, " False ")])).asked, ["a"]);
    const spent = capped("enforced_spend_limit_reached");
    const insisting = { ...spent, headers: [...spent.headers!, "x-should-retry", "true"] };
    assert.deepEqual((await ask([insisting])).asked, ["a"], "but not for a spend cap");
  });

  it("the statuses are those of errors in streams, too", async () => {
    const asked = async (type: string, config = {}) => {
      const body = `event: error\ndata: {"type":"error","error":{"type":"${type}","message":"m"}}\n\n`;
      const broken: ReplyInit = { status: 200, headers: ["content-type", "text/event-stream"], body };
      const streamed = { providers: ["a", "b"], body: { ...REQUEST.body, stream: true }, config };
      return (await ask([broken], streamed)).asked.length;
    };
    assert.deepEqual([await asked("overloaded_error"), await asked("api_error")], [2, 2]);
    assert.equal(await asked("invalid_request_error"), 1);
    assert.equal(await asked("api_error", { retry_statuses: [529] }), 1);
    assert.equal(await asked("overloaded_error", { retry_statuses: [529] }), 2);
  });

  it("a client that has tried before is given fewer", async () => {
    const storm = Array.from({ length: 9 }, () => failing(529));
    const attempts = async (count: string) =>
      (await ask(storm, { headers: ["x-stainless-retry-count", count] })).asked.length;
    assert.deepEqual(
      await Promise.all(["0", "1", "2", "3", "99", "-1", "x"].map(attempts)),
      [4, 3, 2, 1, 1, 4, 4],
    );
  });

  it("a request that nobody knows is sent again only where it cannot have begun", async () => {
    const path = "/v1/unheard-of";
    assert.equal((await ask([failing(500)], { path })).asked.length, 1);
    assert.equal((await ask([failing(429)], { path })).asked.length, 2);
    assert.equal((await ask([failing(429, ["x-should-retry", "false"])], { path })).asked.length, 1);
  });

  it("an error of TokenMan's own is not the provider's", async () => {
    const { reply, asked } = await ask([RESET], { providers: ["a", "b"] });
    assert.deepEqual([reply.status, asked], [500, ["a"]]);
  });
});

describe("time", () => {
  const limits = { timeout: 20_000 };
  const waiting = async (config: Readonly<Record<string, number>>, replies: readonly ReplyInit[]) => {
    const run = await runPlugin(retry, { config });
    let count = 0;
    const sent = run.send(REQUEST, (_: SentRequest) => replies[count++] ?? OK);
    return { run, sent, asked: () => count };
  };

  it("is waited for as the provider asks", limits, async () => {
    using clock = new FakeClock();
    const { run, sent, asked } = await waiting({ retry_base_delay_ms: 100 }, [
      failing(429, ["retry-after", "7"]),
    ]);
    await clock.advance(6_999);
    assert.equal(asked(), 1);
    await clock.advance(101);
    assert.equal(asked(), 2);
    assert.equal((await sent).reply.status, 200);
    clock.restore();
    await run.stop();
  });

  it("is not waited for beyond the longest delay, however absurd", limits, async () => {
    using clock = new FakeClock();
    const { run, sent, asked } = await waiting(
      { retry_base_delay_ms: 100, retry_max_delay_ms: 5_000, retry_total_ms: 0 },
      [failing(429, ["retry-after", "9".repeat(30)])],
    );
    await clock.advance(4_899);
    assert.equal(asked(), 1);
    await clock.advance(101);
    assert.equal((await sent).reply.status, 200);
    clock.restore();
    await run.stop();
  });

  it("that would pass the deadline is not waited at all", limits, async () => {
    using clock = new FakeClock();
    const { run, sent, asked } = await waiting({ retry_total_ms: 10_000, retry_max_delay_ms: 60_000 }, [
      failing(429, ["retry-after", "8"]),
      failing(429, ["retry-after", "3"]),
    ]);
    await clock.advance(8_500);
    assert.equal((await sent).reply.status, 429);
    assert.equal(asked(), 2);
    clock.restore();
    await run.stop();
  });
});

describe("a project", () => {
  it("may have its own number of attempts", async () => {
    await using run = await runPlugin(retry, {
      config: { retry_base_delay_ms: 0, retry_max_attempts: 1 },
      file: { projects: { patient: { resilience: { retry_max_attempts: 4 } } } },
    });
    const attempts = async (project?: string) =>
      (await run.send({ ...REQUEST, ...(project !== undefined && { project }) }, failing(529))).upstream
        .length;
    assert.deepEqual([await attempts(), await attempts("patient")], [2, 5]);
  });
});

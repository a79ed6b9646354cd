import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  addRewrite,
  claimProviderCache,
  definePlugin,
  mayTouch,
  optional,
  type Pricing,
  type Rewrite,
  SavingsGuard,
  type Touch,
  type Usage,
} from "@tokenman/plugin-sdk";
import { capturedLog, sendRequest } from "@tokenman/plugin-sdk/testkit";
import { apiCommands } from "../../plugins/api/commands.ts";
import { mockPlugin } from "../../plugins/mock/index.ts";
import { isHeldOut } from "../../plugins/savings/holdout.ts";
import { cacheEffect, savedBy } from "../../plugins/savings/price.ts";
import { addEffect, Sessions } from "../../plugins/savings/sessions.ts";
import { startLedgered } from "../support/ledgered.ts";

type Rates = NonNullable<ReturnType<Pricing["rates"]>>;
const RATES: Rates = { input: 100, cacheRead: 10, cacheWrite5m: 125, cacheWrite1h: 200, output: 500 };
const usage = (tokens: Partial<Usage>): Usage => ({
  source: "provider",
  inputTokens: 0,
  cacheReadTokens: 0,
  cacheWrite5mTokens: 0,
  cacheWrite1hTokens: 0,
  outputTokens: 0,
  reasoningTokens: 0,
  serverTools: {},
  serviceTier: undefined,
  model: undefined,
  complete: true,
  ...tokens,
});
const rewrite = (newTokens: number, knownTokens: number, more: Partial<Rewrite> = {}): Rewrite => ({
  plugin: "p",
  newTokens,
  knownTokens,
  ...more,
});
const MINUTE_MS = 60_000;
const last = { at: 0, totalTokens: 1_000, cachedTokens: 1_000, ttlMs: 5 * MINUTE_MS };
const price = (tokens: Partial<Usage>, rewrites: readonly Rewrite[], at = MINUTE_MS, known = true) =>
  savedBy(rewrites, { usage: usage(tokens), rates: RATES, at }, known ? last : undefined).map(Math.round);

describe("what a rewrite saved", () => {
  it("is priced as plain input, where the provider caches nothing", () => {
    assert.deepEqual(price({ inputTokens: 1_000 }, [rewrite(10, 20)], MINUTE_MS, false), [3_000]);
  });

  it("is priced as written where it is new, as read where it was there before", () => {
    assert.deepEqual(price({ cacheReadTokens: 1_000, cacheWrite5mTokens: 100 }, [rewrite(10, 20)]), [1_450]);
    assert.deepEqual(price({ cacheReadTokens: 1_000, cacheWrite1hTokens: 100 }, [rewrite(10, 20)]), [2_200]);
  });

  it("is priced in part as read, where only a part of the old prompt was", () => {
    // Half of what is old was read: (10 + 125) / 2 a token.
    assert.deepEqual(price({ cacheReadTokens: 500, cacheWrite5mTokens: 600 }, [rewrite(0, 20)]), [1_350]);
  });

  it("pays for the cache that it broke, while that was warm, and for its own calls", () => {
    const cut = rewrite(0, 600, { breaksPrefix: true, spentNanoUsd: 77 });
    // It saves reading 600 tokens; of the other 400 cached ones 100 are read and 300 are written again.
    const warm = 600 * 10 - 300 * (125 - 10) - 77;
    assert.deepEqual(price({ cacheReadTokens: 100, cacheWrite5mTokens: 350 }, [cut]), [warm]);
    // Nothing would have been read ten minutes later: all that is cut would have been written.
    const cold = 600 * 125 - 77;
    assert.deepEqual(price({ cacheWrite5mTokens: 450 }, [cut], 10 * MINUTE_MS), [cold]);
    // Whoever shares the request does not pay for it.
    const other = rewrite(0, 100);
    assert.deepEqual(price({ cacheReadTokens: 100, cacheWrite5mTokens: 350 }, [other, cut]), [1_000, warm]);
  });

  it("of the provider's cache is negative where it was written in vain", () => {
    assert.equal(cacheEffect({ usage: usage({ cacheWrite5mTokens: 1_000 }), rates: RATES }), -25_000);
    assert.equal(cacheEffect({ usage: usage({ cacheReadTokens: 1_000 }), rates: RATES }), 90_000);
  });
});

describe("a session's balance", () => {
  it("turns after three exchanges, and back when the loss is paid", () => {
    const session = new Sessions().of("s");
    assert.deepEqual(
      [-5, -5, -5, 4, 10, 2, -100].map((nanoUsd) => addEffect(session, "p", nanoUsd)),
      [undefined, undefined, "loss", undefined, undefined, "gain", "loss"],
    );
    assert.equal(session.effects.get("q"), undefined);
  });

  it("is kept for the last sessions only", () => {
    const sessions = new Sessions();
    sessions.of("first");
    sessions.of("second");
    for (let index = 0; index < 9_998; index++) sessions.of(String(index));
    sessions.of("first");
    sessions.of("one more");
    assert.notEqual(sessions.find("first"), undefined);
    assert.equal(sessions.find("second"), undefined);
  });
});

describe("the holdout", () => {
  const held = (share: number) =>
    Array.from({ length: 10_000 }, (_, index) => index).filter((index) =>
      isHeldOut({ project: "default", session: `session ${index}` }, share),
    );

  it("is about its share of sessions, and a larger one has those of a smaller one", () => {
    assert.equal(held(0).length, 0);
    const [small, large] = [held(0.05), held(0.2)];
    assert.ok(Math.abs(small.length - 500) < 100, String(small.length));
    assert.ok(Math.abs(large.length - 2_000) < 200, String(large.length));
    assert.ok(small.every((index) => large.includes(index)));
  });
});

/** Says what it may do, and claims to have saved so many tokens of each request. */
function compressor(asked: Touch[], rewrites: Partial<Rewrite>[]) {
  return definePlugin({
    name: "squeeze",
    version: "1.0.0",
    apiVersion: 1,
    needs: { guard: optional(SavingsGuard) },
    stage: "shape",
    setup(ctx) {
      ctx.pipeline((_config, hooks) => {
        hooks.request.tap((exchange) => {
          const touch = mayTouch(ctx.services.guard, exchange, "squeeze");
          asked.push(touch);
          const next = rewrites.shift();
          if (touch === "none" || next === undefined) return;
          addRewrite(exchange, { plugin: "squeeze", newTokens: 0, knownTokens: 0, ...next });
          if (next.plugin === "hint") claimProviderCache(exchange, "hint");
        });
      });
    },
  });
}

const USAGE = { inputTokens: 1_000, readTokens: 0, write5mTokens: 0, write1hTokens: 0, outputTokens: 10 };
const BASE =
  '[routing]\ndefault_provider = "mock"\n[cache]\nenabled = false\n[compression.dedup]\nenabled = false\n';

async function world(rewrites: Partial<Rewrite>[], config = "", env: Record<string, string> = {}) {
  const asked: Touch[] = [];
  const tokenman = await startLedgered({
    plugins: [mockPlugin({ directions: () => ({ usage: USAGE }) }), compressor(asked, rewrites)],
    config: `${BASE}${config}`,
    env,
  });
  const ask = (headers: readonly string[] = [], session = "s") =>
    sendRequest(`${tokenman.proxy}/v1/messages`, {
      headers: ["x-api-key", "sk-ant-api03-test", "X-Claude-Code-Session-Id", session, ...headers],
      body: JSON.stringify({
        model: "claude-opus-4-5",
        max_tokens: 9,
        messages: [{ role: "user", content: "hello" }],
      }),
    });
  return { tokenman, asked, ask, [Symbol.asyncDispose]: () => tokenman.stop() };
}

async function savingsCommand(
  dashboard: string,
  options: object = {},
  ask: (path: string, init?: RequestInit) => Promise<Response> = (path, init) =>
    fetch(dashboard + path, init),
): Promise<string[]> {
  const lines: string[] = [];
  const command = apiCommands.find(({ usage }) => usage === "savings")!;
  await command.run({
    args: {},
    options: { since: "1d", ...options },
    config: {},
    host: { version: "0", dataDir: "/", configFile: undefined },
    dashboardUrl: dashboard,
    fetch: ask,
    print: (line) => void lines.push(line),
    color: false,
    log: capturedLog([]),
  });
  return lines;
}

describe("the plugin savings", { timeout: 60_000 }, () => {
  it("records what was saved, and stops a plugin that loses in a session, there only", async () => {
    const loss = { newTokens: -100 };
    await using it = await world([loss, loss, loss, loss]);
    for (let turn = 0; turn < 4; turn++) await it.ask();
    await it.ask([], "another");
    assert.deepEqual(it.asked, ["new", "new", "new", "known", "new"]);
    const ends = await it.tokenman.ended(5);
    // 100 tokens at 5 dollars a million.
    assert.deepEqual(ends[0]!.savings, [
      { kind: "compression", plugin: "squeeze", tokens: -100, nanoUsd: -500_000 },
    ]);
    const said = it.tokenman.log.filter(({ message }) => message?.includes("more than it saved"));
    assert.equal(said.length, 1);
    const { plugins } = await it.tokenman.ledger.savings({
      from: Date.now() - 3_600_000,
      to: Date.now() + 1,
    });
    assert.deepEqual(plugins, [
      {
        plugin: "squeeze",
        kind: "compression",
        requests: 4,
        tokens: -400,
        savedNanoUsd: 0,
        lostNanoUsd: 2_000_000,
      },
    ]);
    const told = (await (await fetch(`${it.tokenman.dashboard}/api/savings?range=1h`)).json()) as {
      plugins: unknown[];
      holdout: { held: { sessions: number }; effect: unknown };
    };
    assert.deepEqual(told.plugins, [
      {
        plugin: "squeeze",
        kind: "compression",
        requests: 4,
        tokens: -400,
        savedUsd: 0,
        lostUsd: 0.002,
        netUsd: -0.002,
      },
    ]);
    assert.equal(told.holdout.effect, null);
    const none = await fetch(`${it.tokenman.dashboard}/api/savings?project=nobody`);
    assert.deepEqual(((await none.json()) as typeof told).plugins, []);
  });

  it("tells in words what was saved, and what held-out sessions say", async () => {
    await using it = await world([{ newTokens: 100 }, { plugin: "provider", newTokens: -7 }]);
    await it.ask();
    await it.ask();
    await it.tokenman.ended(2);
    const { ledger } = it.tokenman;
    for (let index = 0; index < 12; index++) {
      const at = Date.now();
      const of = { at, session: `s${index}`, requests: 3, originalTokens: 1_000 + index };
      ledger.trial({ ...of, held: false, paidTokens: 800 + index });
      ledger.trial({ ...of, held: true, paidTokens: 1_000 + index });
    }
    await ledger.flush();
    const lines = await savingsCommand(it.tokenman.dashboard);
    assert.match(lines[0]!, /^PLUGIN +BY +REQUESTS +TOKENS +SAVED +LOST +NET$/);
    assert.match(lines[1]!, /^squeeze +compression +1 +100 +\$0\.0005 +\$0\.0005$/);
    assert.match(lines[2]!, /^together +100 +\$0\.0005$/);
    assert.match(lines[4]!, /compression saves 1?\d\.\d % of the input's cost$/);
    assert.match(lines[5]!, /95 % interval .* a saving \(1[23] sessions compressed, 12 held out\)$/);
    const json = JSON.parse((await savingsCommand(it.tokenman.dashboard, { json: true })).join("\n"));
    const { savedPercent, lowPercent, highPercent } = json.holdout.effect;
    assert.ok(lowPercent < savedPercent && savedPercent < highPercent && lowPercent > 15);
    const stats = (await (await fetch(`${it.tokenman.dashboard}/api/stats`)).json()) as typeof json;
    assert.equal(stats.holdout.held.sessions, 12);
    assert.ok(stats.holdout.effect.savedPercent > 15);
  });

  it("tells why the providers' caches lost turns, and nothing where nobody measures it", async () => {
    const group = { sessions: 0, requests: 0, inputTokens: 0, paidTokens: 0 };
    const savings = { plugins: [], holdout: { compressed: group, held: group, effect: null } };
    const turns = { hit: 90, first: 4, model: 0, tools: 1, system: 0, history: 2, expired: 5, provider: 0 };
    const cache = { hit_rate: 0.912, turns_by_result: turns, turns: [] };
    const asking = (found: object | undefined) => async (path: string) =>
      path.startsWith("/api/savings")
        ? Response.json(savings)
        : found === undefined
          ? new Response(null, { status: 404 })
          : Response.json(found);
    const nothing = "no plugin has saved or lost anything";
    assert.deepEqual(await savingsCommand("", {}, asking(cache)), [
      nothing,
      "since the start the providers' prompt caches had 91.2 % of the input: 90 turns found, 4 first ones, 8 lost",
      "  why: too long a pause (5), a changed history (2), changed tools (1)",
    ]);
    assert.deepEqual(await savingsCommand("", {}, asking(undefined)), [nothing]);
    assert.deepEqual(await savingsCommand("", {}, asking({ ...cache, hit_rate: null })), [nothing]);
    const json = JSON.parse((await savingsCommand("", { json: true }, asking(cache))).join("\n"));
    assert.deepEqual(json.promptCache, { hit_rate: 0.912, turns_by_result: turns });
  });

  it("leaves requests alone whose client or subscription wants it so, and held-out sessions", async () => {
    await using it = await world([], "", { TOKENMAN_COMPRESSION_HOLDOUT: "0.5" });
    await it.ask(["X-Tokenman-NoCompress", "1"]);
    assert.deepEqual(it.asked, ["none"]);
    const sessions = Array.from({ length: 40 }, (_, index) => `session ${index}`);
    for (const session of sessions) await it.ask([], session);
    const expected = sessions.map((session) =>
      isHeldOut({ project: "default", session }, 0.5) ? "none" : "new",
    );
    assert.deepEqual(it.asked.slice(1), expected);
    // Both groups are in the comparison once the gathered sums have been told: at the end of the generation at the latest.
    await it.tokenman.reload("the test asks");
    await it.tokenman.ended(41);
    const { treated, held } = await it.tokenman.ledger.savings({
      from: Date.now() - 86_400_000,
      to: Date.now() + 1,
    });
    assert.equal(held.sessions, expected.filter((touch) => touch === "none").length);
    assert.equal(treated.sessions + held.sessions, 40);
    assert.equal(treated.originalTokens, treated.sessions * 1_000);
    assert.equal(held.paidTokens, held.sessions * 1_000);
    assert.equal(held.products, held.sessions * 1e6);
  });

  it("counts a hint's cache for the plugin that gave it", async () => {
    await using it = await world([{ plugin: "hint" }]);
    await it.ask();
    const [end] = await it.tokenman.ended();
    assert.equal(end!.savings.length, 1);
  });
});

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  cutPrices,
  cutReason,
  definePlugin,
  expectedTurns,
  isCold,
  type LastTurn,
  type Pricing,
  type Turns,
  turnsOf,
  turnsToPay,
} from "@tokenman/plugin-sdk";
import { runPlugin } from "@tokenman/plugin-sdk/testkit";
import "../support/kernel.ts";

const NOW = 1.8e12;
const LAST: LastTurn = {
  at: NOW - 60_000,
  model: "m",
  provider: "anthropic",
  format: "anthropic",
  ttlMs: 300_000,
  pauses: 0,
  inputTokens: 50_000,
  cachedTokens: 49_000,
};
const pricing: Pricing = {
  price: () => ({ priced: false, reason: "not asked" }),
  rates: () => ({ input: 5_000, cacheRead: 500, cacheWrite5m: 6_250, cacheWrite1h: 10_000, output: 25_000 }),
};

describe("whether a cut pays", () => {
  it("is told by what is kept and left: 11.5 times their ratio at Anthropic's prices for five minutes", () => {
    for (const prices of [
      cutPrices(LAST, pricing, NOW),
      cutPrices(LAST, undefined, NOW),
      cutPrices(undefined, pricing, NOW),
    ]) {
      assert.equal(Math.round(turnsToPay({ left: 1_000, kept: 1_000 }, prices) * 1e6) / 1e6, 11.5);
      assert.equal(Math.round(turnsToPay({ left: 4_000, kept: 1_000 }, prices) * 1e6) / 1e6, 2.875);
    }
    const hour = cutPrices({ ...LAST, ttlMs: 3_600_000 }, pricing, NOW);
    assert.equal(turnsToPay({ left: 1_000, kept: 1_000 }, hour), 19);
    // A call of 250 tokens' input beside it.
    const prices = cutPrices(LAST, pricing, NOW);
    assert.equal(turnsToPay({ left: 1_000, kept: 1_000 }, prices, 250 * 5_000), 11.5 + 10);
    assert.equal(
      turnsToPay({ left: 1_000, kept: 1_000 }, cutPrices({ ...LAST, cachedTokens: 0 }, pricing, NOW)),
      0,
    );
  });

  it("counts on a quarter of the answers so far, and on twenty at most", () => {
    assert.deepEqual([0, 3, 4, 47, 80, 1_000].map(expectedTurns), [0, 0, 1, 11, 20, 20]);
    const about = { last: LAST, model: "m", pricing, now: NOW };
    assert.equal(cutReason({ left: 1_000, kept: 1_000 }, { ...about, answers: 44 }), undefined);
    assert.equal(cutReason({ left: 1_000, kept: 1_000 }, { ...about, answers: 48 }), "pays");
    assert.equal(
      cutReason({ left: 0, kept: 1_000 }, { ...about, answers: 1_000, now: NOW + 1e9 }),
      undefined,
    );
  });

  it("does not matter where nothing is cached: after a pause, for another model, or by the provider's figures", () => {
    assert.equal(isCold(undefined, "m", NOW), false);
    assert.equal(isCold(LAST, "m", NOW), false);
    assert.equal(isCold(LAST, "m", LAST.at + 299_999), false);
    assert.equal(isCold(LAST, "m", LAST.at + 300_000), true);
    assert.equal(isCold(LAST, "other", NOW), true);
    assert.equal(isCold({ ...LAST, cachedTokens: 0 }, "m", NOW), true);
    assert.equal(isCold({ ...LAST, cachedTokens: undefined }, "m", NOW), false);
    assert.equal(isCold({ ...LAST, format: "openai", cachedTokens: 0 }, "m", NOW), false);
  });
});

describe("turns", () => {
  it("begin where a user speaks after an answer, not with results of tools", async () => {
    let found: Turns | undefined;
    const reader = definePlugin({
      name: "reader",
      version: "1.0.0",
      apiVersion: 1,
      setup: (ctx) =>
        ctx.pipeline((_config, hooks) => {
          hooks.request.tap((exchange) => {
            found = turnsOf(exchange);
            return undefined;
          });
        }),
    });
    await using run = await runPlugin(reader);
    const of = async (path: string, body: object): Promise<Turns | undefined> => {
      await run.send({ path, body });
      return found;
    };
    const result = { type: "tool_result", tool_use_id: "t", content: "out" };
    const messages = [
      { role: "user", content: "one" },
      { role: "user", content: "more" },
      { role: "assistant", content: [{ type: "tool_use", id: "t", name: "f", input: {} }] },
      { role: "user", content: [result, { type: "text", text: "a hint" }] },
      { role: "assistant", content: "done" },
      { role: "user", content: "two" },
      { role: "user", content: "and this" },
      { role: "assistant", content: "done" },
      { role: "user", content: "three" },
    ];
    const turns = await of("/v1/messages", { model: "m", max_tokens: 1, messages });
    assert.deepEqual(turns, {
      list: "messages",
      opening: 2,
      starts: [5, 8],
      end: 9,
      answers: 3,
      developers: new Set(),
    });
    const input = [
      { role: "developer", content: "rules" },
      { role: "user", content: "one" },
      { type: "function_call", call_id: "c", name: "f", arguments: "{}" },
      { type: "function_call_output", call_id: "c", output: "out" },
      { role: "developer", content: "more rules" },
      { role: "user", content: "two" },
    ];
    const items = await of("/v1/responses", { model: "m", input });
    assert.deepEqual([items?.opening, items?.starts, [...items!.developers]], [2, [5], [4]]);
    assert.equal(await of("/v1/responses", { model: "m", input, previous_response_id: "r" }), undefined);
    assert.equal(await of("/v1/messages", { model: "m", messages: messages.slice(2) }), undefined);
    assert.equal(await of("/v1/embeddings", { model: "m", input: "x" }), undefined);
    assert.equal(
      (await of("/v1/chat/completions", { model: "m", messages: messages.slice(0, 2) }))?.opening,
      2,
    );
  });
});

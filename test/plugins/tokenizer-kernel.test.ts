import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { definePlugin, Pricing, type TokenEstimate, Tokenizer } from "@tokenman/plugin-sdk";
import { startTokenman } from "../support/kernel.ts";

/** Estimates every request, and says what became of it. */
function probe() {
  const estimates: TokenEstimate[] = [];
  const prices: unknown[] = [];
  let ended: () => void = () => {};
  const plugin = definePlugin({
    name: "probe",
    version: "1.0.0",
    apiVersion: 1,
    needs: { tokenizer: Tokenizer, pricing: Pricing },
    setup(ctx) {
      const { tokenizer, pricing } = ctx.services;
      ctx.pipeline((_config, hooks) => {
        hooks.request.tap(async (exchange) => {
          exchange.trackUsage();
          estimates.push(await exchange.wait(tokenizer.estimate(exchange)));
        });
        hooks.lifecycle.for("settled").tap((exchange) => {
          const [attempt] = exchange.attempts;
          const usage = attempt?.usage;
          if (attempt !== undefined && usage !== undefined) {
            const query = {
              model: "mock",
              provider: attempt.provider.name,
              format: "openai",
              at: exchange.startedAt,
            };
            prices.push(pricing.price(query, usage));
          }
          ended();
        });
      });
    },
  });
  const settled = () => new Promise<void>((resolve) => (ended = resolve));
  return { plugin, estimates, prices, settled };
}

describe("tokenizer and pricing in a running TokenMan", () => {
  const ask = (proxy: string, words: number) =>
    fetch(`${proxy}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ model: "mock", messages: [{ role: "user", content: "word ".repeat(words) }] }),
    }).then((response) => response.arrayBuffer());

  it("learn from what the provider billed, across a reload; price what the config prices", async () => {
    const { plugin, estimates, prices, settled } = probe();
    await using kernel = await startTokenman({
      plugins: [plugin],
      config: { pricing: { "mock*": { input: 1, output: 2 } }, tokenizer: { workers: 1 } },
    });
    const first = settled();
    await ask(kernel.proxy, 500);
    await first;
    assert.equal(estimates[0]?.error, undefined);
    assert.ok(estimates[0]!.uncorrected > 500);
    const price = prices[0] as { priced: boolean; cost: { total: number }; source: string };
    assert.ok(price.priced && price.cost.total > 500_000 && price.source === "config");

    assert.equal((await kernel.reload("test")).ok, true);
    const second = settled();
    await ask(kernel.proxy, 500);
    await second;
    assert.equal(typeof estimates[1]?.error, "number");
    assert.equal(estimates[1]?.uncorrected, estimates[0]?.uncorrected);
  });

  it("leave a mock model unpriced that nobody priced", async () => {
    const { plugin, prices, settled } = probe();
    await using kernel = await startTokenman({ plugins: [plugin] });
    const ended = settled();
    await ask(kernel.proxy, 5);
    await ended;
    assert.equal((prices[0] as { priced: boolean }).priced, false);
  });
});

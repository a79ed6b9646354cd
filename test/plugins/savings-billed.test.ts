import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { addRewrite, definePlugin } from "@tokenman/plugin-sdk";
import { providersAt, recordingUpstream, wholeReply } from "@tokenman/plugin-sdk/testkit";
import { startLedgered } from "../support/ledgered.ts";
import { ask } from "../support/recorded-world.ts";

/** A compressor that saved a thousand tokens which this request is the first to carry. */
const shortener = definePlugin({
  name: "shortener",
  version: "1.0.0",
  apiVersion: 1,
  setup: (ctx) =>
    void ctx.pipeline((_config, hooks) =>
      hooks.request.tap((exchange) => {
        addRewrite(exchange, { plugin: "shortener", newTokens: 1_000, knownTokens: 0 });
      }),
    ),
});

describe("a saving is counted at the prices of the bill", () => {
  for (const { about, prices, sent, answered, cost, saved } of [
    {
      // $4 a million: the reply's 10 tokens of input, and the thousand that were saved.
      about: "of the model that answered, not of the one that was asked",
      prices: '[pricing."asked"]\ninput = 1\noutput = 1\n[pricing."answered"]\ninput = 4\noutput = 1\n',
      sent: "asked",
      answered: "answered",
      cost: 40_000,
      saved: 4_000_000,
    },
    {
      // The config's $7 a million is before the list's price of the model that answered.
      about: "of the config, which may name the model that was asked",
      prices: '[pricing."claude-opus-4-5"]\ninput = 7\noutput = 1\n',
      sent: "claude-opus-4-5",
      answered: "claude-haiku-4-5-20251001",
      cost: 70_000,
      saved: 7_000_000,
    },
    {
      // Claude Haiku 4.5: input $1 a million tokens.
      about: "of the list",
      prices: "",
      sent: "claude-opus-4-5",
      answered: "claude-haiku-4-5-20251001",
      cost: 10_000,
      saved: 1_000_000,
    },
    {
      about: "and of no known amount where the bill has no price",
      prices: "",
      sent: "claude-opus-4-5",
      answered: "a-model-of-nobody",
      cost: undefined,
      saved: undefined,
    },
  ])
    test(about, async () => {
      await using upstream = await recordingUpstream();
      await using tokenman = await startLedgered({
        config: `[compression]\nholdout = 0\n${prices}${providersAt(upstream.url)}`,
        plugins: [shortener],
      });
      const usage = { input_tokens: 10, output_tokens: 0 };
      upstream.next(
        wholeReply({
          status: 200,
          headers: ["content-type", "application/json"],
          body: JSON.stringify({ type: "message", model: answered, content: [], usage }),
        }),
      );
      await ask(tokenman.proxy, "/v1/messages", { model: sent });
      const [row] = await tokenman.ended();
      assert.equal(row!.attempts[0]!.cost?.total, cost);
      assert.deepEqual(
        row!.savings.filter(({ plugin }) => plugin === "shortener"),
        [{ kind: "compression", plugin: "shortener", tokens: 1_000, nanoUsd: saved }],
      );
    });
});

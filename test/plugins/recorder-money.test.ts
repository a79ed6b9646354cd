import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { wholeReply } from "@tokenman/plugin-sdk/testkit";
import { ask, recordedWorld } from "../support/recorded-world.ts";

/** Amounts are nano-dollars, worked out by hand from the vendors' price lines: $1 a million tokens is 1,000 a token. */
const MESSAGES = "/v1/messages";

const json = (body: object, status = 200) =>
  wholeReply({ status, headers: ["content-type", "application/json"], body: JSON.stringify(body) });

const message = (model: string, usage: object) =>
  json({ id: "m", type: "message", role: "assistant", model, content: [], usage });

describe("what the provider's prompt cache saved is counted at the rates that the reply was billed at", () => {
  for (const { about, model, usage, saved } of [
    {
      // Claude Sonnet 4.5: input $3, cache hits $0.30; the Batch API is half: 10,000 × (1,500 − 150).
      about: "batch",
      model: "claude-sonnet-4-5-20250929",
      usage: { cache_read_input_tokens: 10_000, service_tier: "batch" },
      saved: 13_500_000,
    },
    {
      // Beyond 200,000 tokens of input: $6 and $0.60: 250,000 × (6,000 − 600).
      about: "a long input",
      model: "claude-sonnet-4-5-20250929",
      usage: { cache_read_input_tokens: 250_000 },
      saved: 1_350_000_000,
    },
    {
      // Claude Opus 4.6: input $5, cache hits $0.50; fast mode is six times that: 10,000 × (30,000 − 3,000).
      about: "fast mode",
      model: "claude-opus-4-6",
      usage: { cache_read_input_tokens: 10_000, speed: "fast" },
      saved: 270_000_000,
    },
  ]) {
    test(about, async () => {
      await using it = await recordedWorld();
      it.upstream.next(message(model, { input_tokens: 0, output_tokens: 0, ...usage }));
      await ask(it.tokenman.proxy, MESSAGES, { model });
      const { savings } = await it.ended();
      assert.deepEqual(savings, [{ kind: "provider-cache", plugin: "provider", tokens: 0, nanoUsd: saved }]);
    });
  }
});

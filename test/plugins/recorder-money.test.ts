import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { errorEvent, sendRequest, textEvents, wholeReply } from "@tokenman/plugin-sdk/testkit";
import { ask, KEY, recordedWorld } from "../support/recorded-world.ts";

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

describe("an error in the place of a stream's answer", () => {
  const stream = (...events: (Buffer | string)[]) =>
    wholeReply({
      status: 200,
      headers: ["content-type", "text/event-stream"],
      body: Buffer.concat(events.map((event) => Buffer.from(event))),
    });
  const long = { messages: [{ role: "user", content: "some words ".repeat(20_000) }], stream: true };
  const event = (name: string, data: object) =>
    `event: ${name}\ndata: ${JSON.stringify({ type: name, ...data })}\n\n`;
  const failed = [
    event("response.created", { response: { id: "r", status: "in_progress", usage: null } }),
    event("response.failed", {
      response: {
        id: "r",
        status: "failed",
        error: { code: "server_error", message: "no" },
        output: [],
        usage: null,
      },
    }),
  ];

  for (const [path, events] of [
    [MESSAGES, [errorEvent("anthropic-messages")]],
    [MESSAGES, [event("ping", {}), errorEvent("anthropic-messages")]],
    ["/v1/chat/completions", [errorEvent("openai-chat")]],
    ["/v1/responses", failed],
  ] as const)
    test(`costs nothing on ${path}, and is no estimate`, async () => {
      await using it = await recordedWorld("[security.budget]\nenabled = true\ndaily_limit = 100\n");
      it.upstream.next(stream(...events));
      await ask(it.tokenman.proxy, path, long);
      const { costNanoUsd, estimated, unpriced, tries } = await it.ended();
      assert.deepEqual([costNanoUsd, estimated, unpriced, tries.length], [undefined, false, false, 1]);
      const { windows } = (await (await fetch(`${it.tokenman.dashboard}/api/security/budget`)).json()) as {
        windows: { spent: number; reserved: number }[];
      };
      assert.deepEqual(
        windows.map(({ spent, reserved }) => [spent, reserved]),
        [[0, 0]],
      );
    });

  test("leaves the budget its room for the next attempt", async () => {
    // About 55,000 tokens of input, $0.055, and an output of 64: twice that is beyond the limit.
    await using it = await recordedWorld(
      "[resilience]\nretry_base_delay_ms = 1\n[security.budget]\nenabled = true\ndaily_limit = 0.1\n" +
        "[security.budget.providers.anthropic]\ndaily_limit = 0.1\n",
      {},
      ["retry"],
    );
    it.upstream.next(stream(errorEvent("anthropic-messages")));
    it.upstream.next(stream(...textEvents("anthropic-messages")));
    await ask(it.tokenman.proxy, MESSAGES, long);
    const { costNanoUsd, tries } = await it.ended();
    assert.deepEqual([tries.length, costNanoUsd], [2, 12 * 1_000 + 5 * 10_000]);
  });

  test("is billed as an estimate where something was generated before it", async () => {
    await using it = await recordedWorld();
    const begun = textEvents("openai-chat", ["some words"]).slice(0, 2);
    it.upstream.next(stream(...begun, errorEvent("openai-chat")));
    await ask(it.tokenman.proxy, "/v1/chat/completions", { stream: true });
    const { estimated, tries } = await it.ended();
    assert.equal(estimated, true);
    assert.ok(tries[0]!.usage!.outputTokens > 0);
  });
});

describe("what no dialect reads", () => {
  for (const [path, unpriced] of [
    ["/v1/images/generations", true],
    ["/v1/messages/batches", true],
    ["/v1/responses/compact", true],
    ["/v1/responses/resp_1/cancel", false],
    ["/v1/files", false],
    ["/v1/uploads/upload_1/complete", false],
    ["/v1/batches/batch_1/cancel", false],
    ["/v1/moderations", false],
    ["/v1/messages/batches/msgbatch_1/cancel", false],
    // The name of an upload's end; with Anthropic a completion.
    ["/v1/complete", true],
  ] as const) {
    test(`${path}: its price is ${unpriced ? "unknown, which is not nothing" : "nothing"}`, async () => {
      await using it = await recordedWorld();
      it.upstream.next(json({ created: 1, usage: { input_tokens: 9, output_tokens: 9 } }));
      // The key tells whose path it is.
      const isAnthropic = /messages|complete$/.test(path) && !path.includes("uploads");
      await sendRequest(`${it.tokenman.proxy}${path}`, {
        headers: ["authorization", `Bearer ${isAnthropic ? KEY : "sk-canary"}`],
        body: JSON.stringify({ prompt: "a cat" }),
      });
      const row = await it.ended();
      assert.equal(row.dialect, undefined);
      assert.equal(row.unpriced, unpriced);
    });
  }

  test("and a refusal of it costs nothing", async () => {
    await using it = await recordedWorld();
    it.upstream.next(json({ error: {} }, 400));
    await ask(it.tokenman.proxy, "/v1/images/generations", { prompt: "a cat" });
    assert.equal((await it.ended()).unpriced, false);
  });
});

test("an estimate is at the speed that the provider told before its stream broke off", async () => {
  await using it = await recordedWorld();
  const begun = {
    type: "message_start",
    message: {
      id: "m",
      type: "message",
      role: "assistant",
      model: "claude-opus-4-6",
      content: [],
      usage: { input_tokens: 1_000, output_tokens: 1, speed: "fast" },
    },
  };
  it.upstream.next(
    wholeReply({
      status: 200,
      headers: ["content-type", "text/event-stream"],
      body: Buffer.from(`event: message_start\ndata: ${JSON.stringify(begun)}\n\n`),
    }),
  );
  await ask(it.tokenman.proxy, MESSAGES, { model: "claude-opus-4-6", stream: true });
  const { estimated, tries } = await it.ended();
  assert.equal(estimated, true);
  // Claude Opus 4.6 in fast mode: input $30, output $150.
  assert.deepEqual([tries[0]?.cost?.input, tries[0]?.cost?.output], [30_000_000, 150_000]);
});

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Dialect, Format } from "@tokenman/plugin-sdk";
import openai from "../../plugins/openai/index.ts";
import { dataEvents, namedEvents, splitEvents } from "../support/events.ts";
import { setUp } from "../support/fake-setup.ts";

const setup = await setUp(openai);
const format = setup.contributed("format")[0] as Format;
const dialect = (name: string) => setup.contributed("dialect").find((one) => one.name === name) as Dialect;
const chat = dialect("openai-chat");
const responses = dialect("openai-responses");

const body = (value: unknown) => Buffer.from(JSON.stringify(value));

/** A chunk as the API streams it when the client asked for usage. */
const chunk = (delta: unknown, more: object = {}) => ({
  id: "chatcmpl-1",
  object: "chat.completion.chunk",
  created: 1760000000,
  model: "gpt-5.1-2025-11-13",
  service_tier: "default",
  choices: [{ index: 0, delta, finish_reason: null }],
  usage: null,
  ...more,
});

const CHAT = dataEvents(
  chunk({ role: "assistant", content: "" }),
  chunk({ content: 'he said "usage": {"prompt_tokens": 1} and "error"' }),
  chunk({}, { choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }),
  chunk(undefined, {
    choices: [],
    usage: {
      prompt_tokens: 2006,
      completion_tokens: 300,
      total_tokens: 2306,
      prompt_tokens_details: { cached_tokens: 1920, audio_tokens: 0 },
      completion_tokens_details: { reasoning_tokens: 256 },
    },
  }),
  "[DONE]",
);

const RESPONSE = { id: "resp_1", object: "response", model: "gpt-5.1", status: "in_progress", usage: null };
const RESPONSES = namedEvents(
  ["response.created", { type: "response.created", sequence_number: 0, response: RESPONSE }],
  ["response.in_progress", { type: "response.in_progress", sequence_number: 1, response: RESPONSE }],
  [
    "response.output_text.delta",
    { type: "response.output_text.delta", sequence_number: 2, delta: "response.completed" },
  ],
  [
    "response.completed",
    {
      type: "response.completed",
      sequence_number: 3,
      response: {
        ...RESPONSE,
        status: "completed",
        service_tier: "priority",
        usage: {
          input_tokens: 5000,
          input_tokens_details: { cached_tokens: 4096, cache_write_tokens: 512 },
          output_tokens: 70,
          output_tokens_details: { reasoning_tokens: 64 },
          total_tokens: 5070,
        },
      },
    },
  ],
);

describe("openai usage", () => {
  it("takes cached tokens out of a stream's prompt tokens", () => {
    const reader = chat.usageReader();
    for (const event of CHAT) reader.event(event);
    assert.deepEqual(reader.usage(), {
      source: "provider",
      inputTokens: 86,
      cacheReadTokens: 1920,
      cacheWrite5mTokens: 0,
      cacheWrite1hTokens: 0,
      outputTokens: 300,
      reasoningTokens: 256,
      serverTools: {},
      serviceTier: "default",
      model: "gpt-5.1-2025-11-13",
      complete: true,
    });
  });

  it("has none for a stream without include_usage", () => {
    const reader = chat.usageReader();
    for (const event of dataEvents(chunk({ content: "hi" }, { usage: undefined }), "[DONE]"))
      reader.event(event);
    assert.equal(reader.usage(), undefined);
  });

  it("replaces figures that a compatible server repeats in every chunk, and finds Groq's", () => {
    const reader = chat.usageReader();
    for (const completion_tokens of [1, 2, 3]) {
      const [event] = dataEvents(
        chunk({ content: "x" }, { usage: { prompt_tokens: 10, completion_tokens } }),
      );
      reader.event(event!);
    }
    assert.equal(reader.usage()?.outputTokens, 3);
    assert.equal(reader.usage()?.complete, false);
    const groq = chat.usageReader();
    for (const event of dataEvents(
      chunk({}),
      chunk({}, { x_groq: { usage: { prompt_tokens: 4, completion_tokens: 2 } } }),
    )) {
      groq.event(event);
    }
    assert.equal(groq.usage()?.inputTokens, 4);
  });

  it("reads the event that ends a Responses stream, cache writes apart", () => {
    const reader = responses.usageReader();
    for (const event of RESPONSES) reader.event(event);
    assert.deepEqual(reader.usage(), {
      source: "provider",
      inputTokens: 392,
      cacheReadTokens: 4096,
      cacheWrite5mTokens: 512,
      cacheWrite1hTokens: 0,
      outputTokens: 70,
      reasoningTokens: 64,
      serverTools: {},
      serviceTier: "priority",
      model: "gpt-5.1",
      complete: true,
    });
  });

  it("reads buffered replies of all three kinds, and nothing from an error", () => {
    const of = (name: string, value: unknown, status = 200) => {
      const reader = dialect(name).usageReader();
      reader.body(body(value), status);
      return reader.usage();
    };
    const chatUsage = { prompt_tokens: 9, completion_tokens: 12, total_tokens: 21 };
    assert.equal(of("openai-chat", { model: "gpt-4o", choices: [], usage: chatUsage })?.outputTokens, 12);
    assert.equal(of("openai-chat", { error: {}, usage: chatUsage }, 429), undefined);
    assert.equal(
      of("openai-responses", { model: "gpt-5", usage: { input_tokens: 3, output_tokens: 1 } })?.inputTokens,
      3,
    );
    const embedded = of("openai-embeddings", {
      model: "text-embedding-3-small",
      usage: { prompt_tokens: 5, total_tokens: 5 },
    });
    assert.equal(embedded?.inputTokens, 5);
    assert.equal(embedded?.outputTokens, 0);
    assert.equal(embedded?.complete, true);
  });

  it("never makes a negative count of contradictory figures", () => {
    const reader = chat.usageReader();
    const details = { cached_tokens: 50, cache_write_tokens: 50 };
    reader.body(
      body({ usage: { prompt_tokens: 10, completion_tokens: 1, prompt_tokens_details: details } }),
      200,
    );
    assert.equal(reader.usage()?.inputTokens, 0);
    assert.equal(reader.usage()?.cacheReadTokens, 10);
    assert.equal(reader.usage()?.cacheWrite5mTokens, 0);
  });
});

describe("openai events", () => {
  const kinds = (one: Dialect, events: Parameters<Dialect["judgeEvent"]>[0][]) =>
    events.map((event) => one.judgeEvent(event).kind);

  it("ends a chat stream at [DONE], and only there", () => {
    assert.deepEqual(kinds(chat, CHAT), ["content", "content", "content", "content", "terminal"]);
  });

  it("ends a Responses stream at completed and incomplete", () => {
    assert.deepEqual(kinds(responses, RESPONSES), ["content", "content", "content", "terminal"]);
    const incomplete = namedEvents([
      "response.incomplete",
      { type: "response.incomplete", response: RESPONSE },
    ]);
    assert.deepEqual(kinds(responses, incomplete), ["terminal"]);
    assert.deepEqual(kinds(responses, dataEvents({ type: "response.completed", response: RESPONSE })), [
      "terminal",
    ]);
  });

  it("takes comments for idle", () => {
    const comment = splitEvents(`: OPENROUTER PROCESSING ${"x".repeat(100)}\n\n:\n\n`);
    assert.deepEqual(kinds(chat, comment), ["idle", "idle"]);
    assert.deepEqual(kinds(responses, comment), ["idle", "idle"]);
  });

  it("sees an error in a chat stream", () => {
    const verdict = (data: unknown) => chat.judgeEvent(dataEvents(data)[0]!);
    assert.deepEqual(verdict({ error: { message: "busy", type: "server_error", param: null, code: null } }), {
      kind: "error",
      type: "server_error",
      status: 500,
      retryable: true,
      message: "busy",
    });
    const spent = verdict({
      error: { message: "pay", type: "insufficient_quota", code: "insufficient_quota" },
    });
    assert.equal(spent.kind === "error" && spent.retryable, false);
    assert.equal(verdict({ error: "just words" }).kind, "error");
    assert.equal(verdict({ error: { code: 429, message: "slow down" } }).kind, "error");
    assert.equal(verdict({ error: null, choices: [] }).kind, "content");
    assert.equal(verdict({ choices: [{ delta: { content: "error" } }] }).kind, "content");
  });

  it("sees a failed response and an error event", () => {
    const failed = (code: string) =>
      responses.judgeEvent(
        namedEvents([
          "response.failed",
          {
            type: "response.failed",
            response: { ...RESPONSE, status: "failed", error: { code, message: "m" } },
          },
        ])[0]!,
      );
    assert.deepEqual(failed("server_error"), {
      kind: "error",
      type: "server_error",
      status: 500,
      retryable: true,
      message: "m",
    });
    assert.equal((failed("rate_limit_exceeded") as { status: number }).status, 429);
    assert.equal((failed("invalid_prompt") as { retryable: boolean }).retryable, false);
    assert.equal((failed("image_content_policy_violation") as { retryable: boolean }).retryable, false);
    const flat = namedEvents([
      "error",
      { type: "error", code: "insufficient_quota", message: "pay", param: null },
    ]);
    assert.deepEqual(responses.judgeEvent(flat[0]!), {
      kind: "error",
      type: "insufficient_quota",
      status: 429,
      retryable: false,
      message: "pay",
    });
  });
});

describe("openai errors", () => {
  const judge = (status: number, error: unknown, headers: string[] = []) =>
    chat.judgeError(status, headers, body(error));

  it("never retries an exhausted quota", () => {
    for (const code of ["insufficient_quota", "credit_balance_exhausted"]) {
      const verdict = judge(429, { error: { message: "m", type: code, param: null, code } }, [
        "x-should-retry",
        "true",
      ]);
      assert.deepEqual(verdict, { type: code, code, message: "m", retryable: false });
    }
  });

  it("retries rate limits and the server's errors", () => {
    assert.equal(judge(429, { error: { type: "requests", code: "rate_limit_exceeded" } }).retryable, true);
    assert.equal(judge(503, { error: { type: "slow_down" } }).retryable, true);
    assert.equal(judge(400, { error: { type: "invalid_request_error" } }).retryable, false);
    assert.equal(judge(500, {}, ["X-Should-Retry", "false"]).retryable, false);
  });

  it("reads the variants of compatible servers", () => {
    assert.equal(judge(404, { error: "model 'x' not found" }).message, "model 'x' not found");
    assert.equal(judge(400, [{ error: { message: "wrapped" } }]).message, "wrapped");
    assert.equal(chat.judgeError(502, [], Buffer.from("<html>")).retryable, true);
  });

  it("words TokenMan's own errors as the vendor does", () => {
    const reply = format.errorReply(
      {
        code: "TM_BUDGET",
        status: 429,
        message: "spent",
        headers: ["Retry-After", "60"],
        details: { period: "daily" },
      },
      "0190-id",
    );
    assert.deepEqual(reply.headers, [
      "Content-Type",
      "application/json",
      "x-request-id",
      "0190-id",
      "Retry-After",
      "60",
    ]);
    assert.deepEqual(JSON.parse(String(reply.body)), {
      error: { period: "daily", message: "spent", type: "rate_limit_error", param: null, code: "TM_BUDGET" },
    });
  });
});

describe("openai format", () => {
  it("finds the credential", () => {
    assert.deepEqual(format.credential(["Authorization", "bearer sk-proj-a"]), {
      kind: "key",
      header: "authorization",
      secret: "sk-proj-a",
    });
    assert.equal(format.credential(["api-key", "azure"])?.header, "api-key");
    assert.equal(format.credential([]), undefined);
  });

  it("takes a ChatGPT login for a subscription", () => {
    assert.equal(format.isSubscription(["authorization", "Bearer eyJhbGciOi.eyJzdWIi.c2ln"]), true);
    assert.equal(format.isSubscription(["ChatGPT-Account-Id", "a"]), true);
    assert.equal(format.isSubscription(["authorization", "Bearer sk-proj-a"]), false);
    assert.equal(format.isSubscription(["authorization", "Bearer local"]), false);
  });

  it("claims opaque requests that bear its marks, and none of the other vendor's", () => {
    assert.equal(format.claims(["authorization", "Bearer sk-proj-a"], "/v1/files"), true);
    assert.equal(format.claims(["user-agent", "OpenAI/JS 6.49.0"]), true);
    assert.equal(format.claims([], "/v1/responses/resp_1/cancel"), true);
    assert.equal(format.claims(["authorization", "Bearer sk-ant-api03-a"], "/v1/files"), false);
    assert.equal(format.claims(["anthropic-version", "2023-06-01", "user-agent", "OpenAI/JS"]), false);
    assert.equal(format.claims([], "/v1/files"), false);
  });

  it("serves /v1/models to all but the other vendor's clients", () => {
    const models = dialect("openai-models");
    assert.equal(models.accepts?.([]), true);
    assert.equal(models.accepts?.(["Anthropic-Version", "2026-10-21"]), false);
  });
});

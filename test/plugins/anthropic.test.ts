import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Dialect, Format, ReplyInit } from "@tokenman/plugin-sdk";
import anthropic from "../../plugins/anthropic/index.ts";
import { namedEvents, splitEvents } from "../support/events.ts";
import { setUp } from "../support/fake-setup.ts";

const setup = await setUp(anthropic);
const format = setup.contributed("format")[0] as Format;
const dialect = (name: string) => setup.contributed("dialect").find((one) => one.name === name) as Dialect;
const messages = dialect("anthropic-messages");

const body = (value: unknown) => Buffer.from(JSON.stringify(value));

/** A cached, thinking, tool-calling turn as the API streams it. */
const TURN = namedEvents(
  [
    "message_start",
    {
      type: "message_start",
      message: {
        id: "msg_01",
        type: "message",
        role: "assistant",
        model: "claude-opus-4-5-20251101",
        content: [],
        stop_reason: null,
        usage: {
          input_tokens: 12,
          cache_creation_input_tokens: 3000,
          cache_read_input_tokens: 41000,
          cache_creation: { ephemeral_5m_input_tokens: 1000, ephemeral_1h_input_tokens: 2000 },
          output_tokens: 3,
          service_tier: "standard",
        },
      },
    },
  ],
  [
    "content_block_start",
    { type: "content_block_start", index: 0, content_block: { type: "thinking", thinking: "" } },
  ],
  ["ping", { type: "ping" }],
  [
    "content_block_delta",
    {
      type: "content_block_delta",
      index: 0,
      delta: { type: "thinking_delta", thinking: '{"usage":{"input_tokens":9}}' },
    },
  ],
  ["content_block_stop", { type: "content_block_stop", index: 0 }],
  [
    "message_delta",
    {
      type: "message_delta",
      delta: { stop_reason: null },
      usage: {
        output_tokens: 40,
        input_tokens: null,
        server_tool_use: { web_search_requests: 1, web_fetch_requests: 0 },
      },
    },
  ],
  [
    "message_delta",
    {
      type: "message_delta",
      delta: { stop_reason: "tool_use" },
      usage: {
        input_tokens: 15,
        cache_creation_input_tokens: 3000,
        cache_read_input_tokens: 41000,
        output_tokens: 90,
        output_tokens_details: { thinking_tokens: 31 },
        server_tool_use: { web_search_requests: 2, web_fetch_requests: 0 },
      },
    },
  ],
  ["message_stop", { type: "message_stop" }],
);

describe("anthropic usage", () => {
  it("replaces, never sums, the cumulative figures of a stream", () => {
    const reader = messages.usageReader();
    for (const event of TURN) reader.event(event);
    assert.deepEqual(reader.usage(), {
      source: "provider",
      inputTokens: 15,
      cacheReadTokens: 41000,
      cacheWrite5mTokens: 1000,
      cacheWrite1hTokens: 2000,
      outputTokens: 90,
      reasoningTokens: 31,
      serverTools: { web_search_requests: 2 },
      serviceTier: "standard",
      model: "claude-opus-4-5-20251101",
      complete: true,
    });
  });

  it("marks the figures of a cut stream as incomplete", () => {
    const reader = messages.usageReader();
    for (const event of TURN.slice(0, 4)) reader.event(event);
    assert.equal(reader.usage()?.complete, false);
    assert.equal(reader.usage()?.outputTokens, 3);
  });

  it("reads a buffered reply, and nothing from an error or before anything came", () => {
    const reader = messages.usageReader();
    assert.equal(reader.usage(), undefined);
    reader.body(body({ type: "error", usage: { input_tokens: 9 } }), 400);
    assert.equal(reader.usage(), undefined);
    reader.body(
      body({
        model: "claude-haiku-4-5",
        content: [{ type: "text", text: "hi" }],
        usage: { input_tokens: 7, cache_creation_input_tokens: 500, output_tokens: 2 },
      }),
      200,
    );
    const usage = reader.usage();
    assert.equal(usage?.inputTokens, 7);
    assert.equal(usage?.cacheWrite5mTokens, 500);
    assert.equal(usage?.model, "claude-haiku-4-5");
    assert.equal(usage?.complete, true);
  });

  it("adds compaction, which the top-level figures leave out, and lists an advisor apart", () => {
    const reader = messages.usageReader();
    const iteration = { cache_creation_input_tokens: 0, cache_read_input_tokens: 0 };
    reader.body(
      body({
        model: "m",
        usage: {
          input_tokens: 100,
          output_tokens: 10,
          iterations: [
            { ...iteration, type: "compaction", input_tokens: 5000, output_tokens: 300 },
            { ...iteration, type: "advisor_message", model: "other", input_tokens: 70, output_tokens: 8 },
            { ...iteration, type: "message", input_tokens: 100, output_tokens: 10 },
          ],
        },
      }),
      200,
    );
    assert.equal(reader.usage()?.inputTokens, 5100);
    assert.equal(reader.usage()?.outputTokens, 310);
    assert.deepEqual(reader.usage()?.serverTools, { advisor_input_tokens: 70, advisor_output_tokens: 8 });
  });

  it("reads none for count_tokens, which is free", () => {
    const reader = dialect("anthropic-count-tokens").usageReader();
    reader.body(body({ input_tokens: 2095 }), 200);
    assert.equal(reader.usage(), undefined);
  });
});

describe("anthropic events", () => {
  it("tells pings, content and the end apart", () => {
    assert.deepEqual(
      TURN.map((event) => messages.judgeEvent(event).kind),
      ["content", "content", "idle", "content", "content", "content", "content", "terminal"],
    );
  });

  it("takes a comment for idle and an unknown event for content", () => {
    const seen = splitEvents(': keep-alive\n\nevent: fancy_new\ndata: {"type":"fancy_new"}\n\n');
    assert.deepEqual(
      seen.map((event) => messages.judgeEvent(event).kind),
      ["idle", "content"],
    );
  });

  it("judges an error event by its type and code", () => {
    const verdict = (error: unknown) =>
      messages.judgeEvent(namedEvents(["error", { type: "error", error }])[0]!);
    assert.deepEqual(verdict({ type: "overloaded_error", message: "Overloaded" }), {
      kind: "error",
      type: "overloaded_error",
      status: 529,
      retryable: true,
      message: "Overloaded",
    });
    const spent = verdict({
      type: "rate_limit_error",
      details: { error_code: "enforced_spend_limit_reached" },
    });
    assert.equal(spent.kind === "error" && spent.retryable, false);
    const invalid = verdict({ type: "invalid_request_error", message: "no" });
    assert.equal(invalid.kind === "error" && invalid.retryable, false);
  });

  it("finds the type in the data where the block names none", () => {
    const seen = splitEvents('data: {"type":"message_stop"}\n\n');
    assert.equal(messages.judgeEvent(seen[0]!).kind, "terminal");
  });
});

describe("anthropic errors", () => {
  it("never retries a spend cap, whatever the status and the advice say", () => {
    for (const error_code of ["enforced_spend_limit_reached", "contract_spend_limit_reached"]) {
      const reply = body({
        type: "error",
        error: { type: "rate_limit_error", message: "cap", details: { error_code } },
      });
      const verdict = messages.judgeError(429, ["x-should-retry", "true"], reply);
      assert.deepEqual(verdict, {
        type: "rate_limit_error",
        code: error_code,
        message: "cap",
        retryable: false,
      });
    }
  });

  it("judges by status, and by the vendor's own advice", () => {
    const retryable = (status: number, headers: string[] = []) =>
      messages.judgeError(status, headers, Buffer.alloc(0)).retryable;
    assert.deepEqual(
      [400, 401, 402, 403, 404, 413].map((status) => retryable(status)),
      Array(6).fill(false),
    );
    assert.deepEqual(
      [408, 409, 429, 500, 502, 503, 504, 529].map((status) => retryable(status)),
      Array(8).fill(true),
    );
    assert.equal(retryable(529, ["X-Should-Retry", "false"]), false);
  });

  it("judges an HTML error by its status", () => {
    const verdict = messages.judgeError(502, [], Buffer.from("<html><h1>Bad Gateway</h1>"));
    assert.deepEqual(verdict, { type: undefined, code: undefined, message: undefined, retryable: true });
  });

  it("words TokenMan's own errors as the vendor does", () => {
    const reply = format.errorReply(
      {
        code: "TM_BUDGET",
        status: 429,
        message: "the daily budget is spent",
        headers: ["Retry-After", "60", "x-should-retry", "false"],
        details: { period: "daily", limit: 5, spent: 5.01, type: "not me" },
      },
      "0190-id",
    ) as ReplyInit;
    assert.equal(reply.status, 429);
    assert.deepEqual(reply.headers, [
      "Content-Type",
      "application/json",
      "request-id",
      "0190-id",
      "Retry-After",
      "60",
      "x-should-retry",
      "false",
    ]);
    assert.deepEqual(JSON.parse(String(reply.body)), {
      type: "error",
      error: {
        period: "daily",
        limit: 5,
        spent: 5.01,
        type: "rate_limit_error",
        message: "the daily budget is spent",
        details: { error_code: "TM_BUDGET" },
      },
      request_id: "0190-id",
    });
  });

  it("has the vendor's type for every status", () => {
    const type = (status: number) => {
      const reply = format.errorReply({ code: "TM_INTERNAL", status, message: "" }, "");
      return JSON.parse(String(reply.body)).error.type;
    };
    assert.deepEqual([400, 401, 403, 404, 413, 429, 500, 502, 503, 504, 529, 426].map(type), [
      "invalid_request_error",
      "authentication_error",
      "permission_error",
      "not_found_error",
      "request_too_large",
      "rate_limit_error",
      "api_error",
      "api_error",
      "overloaded_error",
      "timeout_error",
      "overloaded_error",
      "invalid_request_error",
    ]);
  });
});

describe("anthropic format", () => {
  it("finds the credential in both headers that may carry it", () => {
    assert.deepEqual(format.credential(["X-Api-Key", "sk-ant-api03-a"]), {
      kind: "key",
      header: "x-api-key",
      secret: "sk-ant-api03-a",
    });
    assert.deepEqual(format.credential(["authorization", "Bearer sk-ant-api03-b"]), {
      kind: "key",
      header: "authorization",
      secret: "sk-ant-api03-b",
    });
    assert.equal(format.credential(["authorization", "Basic dXNlcg=="])?.secret, "Basic dXNlcg==");
    assert.equal(format.credential(["accept", "*/*"]), undefined);
  });

  it("takes OAuth, and whatever may be OAuth, for a subscription", () => {
    assert.equal(format.isSubscription(["Authorization", "Bearer sk-ant-oat01-x"]), true);
    assert.equal(
      format.isSubscription(["x-api-key", "sk-ant-api03-x", "anthropic-beta", "a,oauth-2025-04-20"]),
      true,
    );
    assert.equal(
      format.isSubscription(["anthropic-beta", "a", "anthropic-beta", "oauth-2025-04-20,b"]),
      true,
    );
    assert.equal(format.isSubscription(["Authorization", "Bearer something-else"]), true);
    assert.equal(format.isSubscription(["Authorization", "Bearer sk-ant-api03-x"]), false);
    assert.equal(
      format.isSubscription(["x-api-key", "sk-ant-api03-x", "anthropic-beta", "no-oauth-here"]),
      false,
    );
    assert.equal(format.isSubscription([]), false);
  });

  it("claims opaque requests that bear its marks", () => {
    assert.equal(format.claims(["anthropic-version", "2023-06-01"]), true);
    assert.equal(format.claims(["authorization", "Bearer sk-ant-oat01-x"]), true);
    assert.equal(format.claims(["authorization", "Bearer sk-proj-x"]), false);
    assert.equal(format.claims([], "/v1/messages/batches/b1/results"), true);
    assert.equal(format.claims([], "/api/hello"), true);
    assert.equal(format.claims([], "/v1/files"), false);
  });

  it("serves /v1/models only to its own clients", () => {
    const models = dialect("anthropic-models");
    assert.equal(models.accepts?.(["Anthropic-Version", "2026-10-21"]), true);
    assert.equal(models.accepts?.(["authorization", "Bearer x"]), false);
  });
});

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Dialect } from "@tokenman/plugin-sdk";
import openai from "../../plugins/openai/index.ts";
import { setUp } from "../support/fake-setup.ts";
import { survivesHostileInput } from "../support/hostile.ts";

const setup = await setUp(openai);
const dialect = (name: string) => setup.contributed("dialect").find((one) => one.name === name) as Dialect;
const chat = dialect("openai-chat");
const responses = dialect("openai-responses");

const body = (value: unknown) => Buffer.from(JSON.stringify(value));

describe("openai description", () => {
  it("reads chat, Responses and embeddings bodies", () => {
    const of = (value: unknown) => {
      const found = chat.describe(body(value));
      return [found?.model, found?.stream, found?.maxOutputTokens, found?.tools];
    };
    assert.deepEqual(of({ model: "gpt-4o", messages: [], max_tokens: 5 }), ["gpt-4o", false, 5, "none"]);
    assert.deepEqual(of({ model: "o3", max_tokens: 5, max_completion_tokens: 7, stream: true }), [
      "o3",
      true,
      7,
      "none",
    ]);
    assert.deepEqual(of({ model: "gpt-5", input: "hi", max_output_tokens: 9 }), ["gpt-5", false, 9, "none"]);
  });

  it("tells the client's tools from the provider's", () => {
    const of = (value: object) => responses.describe(body(value))?.tools;
    assert.equal(
      of({
        tools: [
          { type: "function", name: "f" },
          { type: "custom", name: "c" },
        ],
      }),
      "client",
    );
    assert.equal(of({ functions: [{ name: "f" }] }), "client");
    assert.equal(of({ tools: [{ type: "function" }, { type: "web_search" }] }), "server");
    assert.equal(of({ tools: [{ type: "mcp", server_url: "https://x" }] }), "server");
    assert.equal(of({ web_search_options: {} }), "server");
    assert.equal(of({}), "none");
  });
});

describe("openai segments", () => {
  const list = (one: Dialect, value: unknown) =>
    one
      .segments(body(value))
      .map((span) => [span.pointer, span.role, span.kind, span.message, span.sealed, span.tool]);

  const TOOL = { type: "function", function: { name: "read", parameters: {} } };

  it("lists a chat body", () => {
    assert.deepEqual(
      list(chat, {
        messages: [
          { role: "developer", content: "be good" },
          {
            role: "user",
            content: [
              { type: "text", text: "look" },
              { type: "image_url", image_url: { url: "u" } },
            ],
          },
          {
            role: "assistant",
            content: null,
            reasoning_content: "hm",
            tool_calls: [
              { id: "call_1", type: "function", function: { name: "read", arguments: "{}" } },
              { id: "call_2", type: "custom", custom: { name: "patch", input: "raw" } },
            ],
          },
          { role: "tool", tool_call_id: "call_1", content: "code" },
          { role: "tool", tool_call_id: "call_2", content: [{ type: "text", text: "ok" }] },
        ],
        tools: [TOOL],
      }),
      [
        ["/tools/0", "other", "tool-definition", -1, false, "read"],
        ["/messages/0/content", "system", "system", 0, false, undefined],
        ["/messages/1/content/0/text", "user", "text", 1, false, undefined],
        ["/messages/1/content/1", "user", "attachment", 1, false, undefined],
        ["/messages/2/reasoning_content", "assistant", "thinking", 2, true, undefined],
        ["/messages/2/tool_calls/0/function/arguments", "assistant", "tool-call", 2, false, "read"],
        ["/messages/2/tool_calls/1/custom/input", "assistant", "tool-call", 2, false, "patch"],
        ["/messages/3/content", "tool", "tool-result", 3, false, "read"],
        ["/messages/4/content/0/text", "tool", "tool-result", 4, false, "patch"],
      ],
    );
  });

  const INPUT = {
    instructions: "be good",
    input: [
      {
        role: "user",
        content: [
          { type: "input_text", text: "look" },
          { type: "input_image", image_url: "u" },
        ],
      },
      {
        type: "reasoning",
        id: "rs_1",
        summary: [{ type: "summary_text", text: "hm" }],
        encrypted_content: "e",
      },
      { type: "function_call", call_id: "c1", name: "read", arguments: "{}" },
      { type: "function_call_output", call_id: "c1", output: "code" },
      {
        type: "message",
        role: "assistant",
        content: [{ type: "output_text", text: "done", annotations: [] }],
      },
      { type: "item_reference", id: "x" },
      { type: "compaction", encrypted_content: "e" },
    ],
  };
  const INPUT_SEGMENTS = [
    ["/instructions", "system", "system", -1, false, undefined],
    ["/input/0/content/0/text", "user", "text", 0, false, undefined],
    ["/input/0/content/1", "user", "attachment", 0, false, undefined],
    ["/input/1/summary/0/text", "assistant", "thinking", 1, true, undefined],
    ["/input/1/encrypted_content", "assistant", "thinking", 1, true, undefined],
    ["/input/2/arguments", "assistant", "tool-call", 2, false, "read"],
    ["/input/3/output", "tool", "tool-result", 3, false, "read"],
    ["/input/4/content/0/text", "assistant", "text", 4, false, undefined],
    ["/input/5", "other", "other", 5, false, undefined],
    ["/input/6", "other", "other", 6, true, undefined],
  ];

  it("lists a Responses body", () => {
    assert.deepEqual(list(responses, INPUT), INPUT_SEGMENTS);
    assert.deepEqual(list(responses, { input: "hi" }), [["/input", "user", "text", 0, false, undefined]]);
  });

  it("reads a Responses-shaped body that was posted to chat", () => {
    assert.deepEqual(list(chat, INPUT), INPUT_SEGMENTS);
  });

  it("points into prompt variables of any name", () => {
    const value = { prompt: { id: "p", variables: { "a/b~c": "x" } } };
    const [segment] = responses.segments(body(value));
    assert.equal(segment?.pointer, "/prompt/variables/a~1b~0c");
    assert.equal(body(value).toString("utf8", segment?.start, segment?.end), '"x"');
  });

  it("lists embeddings input in each of its forms", () => {
    const one = dialect("openai-embeddings");
    assert.deepEqual(
      list(one, { input: "a" }).map(([pointer, , kind]) => [pointer, kind]),
      [["/input", "text"]],
    );
    assert.deepEqual(
      list(one, { input: ["a", "b"] }).map(([pointer]) => pointer),
      ["/input/0", "/input/1"],
    );
    assert.deepEqual(
      list(one, { input: [1, 2] }).map(([pointer, , kind]) => [pointer, kind]),
      [["/input", "other"]],
    );
  });
});

describe("openai and hostile input", () => survivesHostileInput(setup.contributed("dialect")));

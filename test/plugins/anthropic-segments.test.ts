import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Dialect } from "@tokenman/plugin-sdk";
import anthropic from "../../plugins/anthropic/index.ts";
import { setUp } from "../support/fake-setup.ts";
import { survivesHostileInput } from "../support/hostile.ts";

const setup = await setUp(anthropic);
const dialect = (name: string) => setup.contributed("dialect").find((one) => one.name === name) as Dialect;
const messages = dialect("anthropic-messages");

const body = (value: unknown) => Buffer.from(JSON.stringify(value));

describe("anthropic description", () => {
  it("reads the model, the stream flag and the cap", () => {
    const found = messages.describe(
      body({ messages: [], model: "claude-opus-4-5", stream: true, max_tokens: 32000 }),
    );
    assert.equal(found?.model, "claude-opus-4-5");
    assert.equal(found?.modelPointer, "/model");
    assert.equal(found?.stream, true);
    assert.equal(found?.maxOutputTokens, 32000);
    assert.equal(found?.tools, "none");
  });

  it("tells the client's tools from the provider's", () => {
    const tools = (...types: (string | undefined)[]) =>
      messages.describe(body({ tools: types.map((type) => ({ name: "t", ...(type && { type }) })) }))?.tools;
    assert.equal(
      tools(undefined, "custom", "bash_20250124", "text_editor_20250728", "memory_20250818"),
      "client",
    );
    assert.equal(tools(undefined, "web_search_20250305"), "server");
    assert.equal(tools("code_execution_20250825"), "server");
    assert.equal(tools("tool_of_tomorrow"), "server");
    assert.equal(messages.describe(body({ mcp_servers: [{ url: "https://x" }] }))?.tools, "server");
  });

  it("does not fail on wrong types", () => {
    const found = messages.describe(body({ model: 7, stream: "yes", max_tokens: -1, tools: "none" }));
    assert.equal(found?.model, undefined);
    assert.equal(found?.modelPointer, undefined);
    assert.equal(found?.stream, false);
    assert.equal(found?.maxOutputTokens, undefined);
    assert.equal(found?.tools, "none");
  });
});

describe("anthropic segments", () => {
  const list = (value: unknown) =>
    messages
      .segments(body(value))
      .map((one) => [
        ...[one.pointer, one.role, one.kind, one.message, one.sealed, one.tool],
        JSON.parse(body(value).toString("utf8", one.start, one.end)),
      ]);

  it("lists tools, system and messages in the provider's order", () => {
    assert.deepEqual(
      list({
        messages: [
          { role: "user", content: "hi" },
          {
            role: "assistant",
            content: [
              { type: "thinking", thinking: "hm", signature: "c2ln" },
              { type: "redacted_thinking", data: "ZGF0YQ" },
              { type: "text", text: "let me look" },
              { type: "tool_use", id: "toolu_1", name: "read", input: { path: "a.ts" } },
            ],
          },
          {
            role: "user",
            content: [
              {
                type: "tool_result",
                tool_use_id: "toolu_1",
                content: [
                  { type: "text", text: "code" },
                  { type: "image", source: { type: "url", url: "u" } },
                ],
              },
              { type: "tool_result", tool_use_id: "toolu_9", content: "plain", is_error: true },
              {
                type: "document",
                title: "T",
                source: { type: "text", media_type: "text/plain", data: "doc" },
              },
            ],
          },
        ],
        system: [{ type: "text", text: "be good", cache_control: { type: "ephemeral" } }],
        tools: [{ name: "read", input_schema: { type: "object" } }],
      }),
      [
        [
          "/tools/0",
          "other",
          "tool-definition",
          -1,
          false,
          "read",
          { name: "read", input_schema: { type: "object" } },
        ],
        ["/system/0/text", "system", "system", -1, false, undefined, "be good"],
        ["/messages/0/content", "user", "text", 0, false, undefined, "hi"],
        ["/messages/1/content/0/thinking", "assistant", "thinking", 1, true, undefined, "hm"],
        ["/messages/1/content/0/signature", "assistant", "thinking", 1, true, undefined, "c2ln"],
        ["/messages/1/content/1/data", "assistant", "thinking", 1, true, undefined, "ZGF0YQ"],
        ["/messages/1/content/2/text", "assistant", "text", 1, false, undefined, "let me look"],
        ["/messages/1/content/3/input", "assistant", "tool-call", 1, false, "read", { path: "a.ts" }],
        ["/messages/2/content/0/content/0/text", "tool", "tool-result", 2, false, "read", "code"],
        [
          "/messages/2/content/0/content/1/source",
          "tool",
          "attachment",
          2,
          false,
          "read",
          { type: "url", url: "u" },
        ],
        ["/messages/2/content/1/content", "tool", "tool-result", 2, false, undefined, "plain"],
        ["/messages/2/content/2/title", "user", "attachment", 2, false, undefined, "T"],
        ["/messages/2/content/2/source/data", "user", "attachment", 2, false, undefined, "doc"],
      ],
    );
  });

  it("keeps what it does not know whole, and sealed where it is signed", () => {
    assert.deepEqual(
      list({
        system: "s",
        messages: [
          {
            role: "assistant",
            content: [
              { type: "from_the_future", text: "x" },
              { type: "also_new", encrypted_content: "e" },
              { type: "compaction", content: "summary" },
              { type: "server_tool_use", id: "srv_1", name: "web_search", input: { query: "q" } },
              { type: "web_search_tool_result", tool_use_id: "srv_1", content: [{ encrypted_content: "e" }] },
            ],
          },
        ],
      }).map(([pointer, role, kind, , sealed, tool]) => [pointer, role, kind, sealed, tool]),
      [
        ["/system", "system", "system", false, undefined],
        ["/messages/0/content/0", "assistant", "other", false, undefined],
        ["/messages/0/content/1", "assistant", "other", true, undefined],
        ["/messages/0/content/2", "assistant", "other", true, undefined],
        ["/messages/0/content/3/input", "assistant", "tool-call", false, "web_search"],
        ["/messages/0/content/4/content", "tool", "tool-result", true, "web_search"],
      ],
    );
  });

  it("points every segment at its own bytes", () => {
    const source = body({
      messages: [{ role: "user", content: [{ type: "text", text: "naïve \u{1f600}" }] }],
    });
    const [one] = messages.segments(source);
    assert.equal(source.subarray(one!.start, one!.end).toString(), JSON.stringify("naïve \u{1f600}"));
  });
});

describe("anthropic and hostile input", () => survivesHostileInput(setup.contributed("dialect")));

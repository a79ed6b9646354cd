import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  conversations,
  type Problem,
  requestProblems,
  rewriteProblems,
  toolResults,
  type VendorDialect,
} from "@tokenman/plugin-sdk/testkit";

const bytes = (body: unknown): Buffer => Buffer.from(JSON.stringify(body));
const places = (problems: readonly Problem[]): string[] => problems.map(({ pointer }) => pointer);
const check = (dialect: VendorDialect, body: unknown): string[] =>
  places(requestProblems(dialect, bytes(body)));

const text = (value: string, more: object = {}) => ({ type: "text", text: value, ...more });
const user = (...content: unknown[]) => ({ role: "user", content });
const assistant = (...content: unknown[]) => ({ role: "assistant", content });
const call = (id: string) => ({ type: "tool_use", id, name: "read", input: {} });
const result = (id: string, more: object = {}) => ({
  type: "tool_result",
  tool_use_id: id,
  content: "x",
  ...more,
});
const thinking = { type: "thinking", thinking: "hm", signature: "c2ln" };
const marked = (ttl?: string) => ({
  cache_control: { type: "ephemeral", ...(ttl !== undefined && { ttl }) },
});
const messages = (...list: unknown[]) => ({ model: "m", max_tokens: 1, messages: list });

describe("the rules of Messages", () => {
  const anthropic = (body: unknown) => check("anthropic-messages", body);

  it("let a valid conversation pass", () => {
    const valid = messages(
      user(text("a")),
      assistant(thinking, text("b"), call("1"), call("2")),
      user(result("2"), result("1"), text("c")),
      { role: "assistant", content: "d" },
      { role: "user", content: "e" },
    );
    assert.deepEqual(anthropic(valid), []);
  });

  it("hold calls and results together", () => {
    assert.deepEqual(anthropic(messages(user(result("1")))), ["/messages/0/content/0"]);
    assert.deepEqual(anthropic(messages(user(text("a")), assistant(call("1")), user(text("b")))), [
      "/messages/1/content/0",
    ]);
    assert.deepEqual(anthropic(messages(user(text("a")), assistant(call("1")))), ["/messages/1/content/0"]);
    const late = messages(user(text("a")), assistant(call("1")), user(text("b"), result("1")));
    assert.deepEqual(anthropic(late), ["/messages/2/content/1"]);
    const twice = messages(user(text("a")), assistant(call("1"), call("1")), user(result("1")));
    assert.deepEqual(anthropic(twice), ["/messages/1/content/1"]);
    const again = messages(user(text("a")), assistant(call("1")), user(result("1"), result("1")));
    assert.deepEqual(anthropic(again), ["/messages/2/content/1"]);
  });

  it("know who says what, and that nothing is empty", () => {
    assert.deepEqual(anthropic(messages(assistant(text("a")))), ["/messages/0/role"]);
    assert.deepEqual(anthropic(messages(user(thinking))), ["/messages/0/content/0"]);
    assert.deepEqual(anthropic(messages(user(text("")))), ["/messages/0/content/0"]);
    assert.deepEqual(anthropic(messages(user(), { role: "tool", content: "x" })), [
      "/messages/0/content",
      "/messages/1/role",
    ]);
    assert.deepEqual(anthropic({ messages: [] }), ["/model", "/max_tokens", "/messages"]);
    assert.deepEqual(anthropic([]), [""]);
    assert.deepEqual(places(requestProblems("anthropic-messages", Buffer.from("{"))), [""]);
  });

  it("count four breakpoints, wherever they are", () => {
    const full = {
      ...messages(user(text("a", marked())), assistant(text("b")), user(text("c", marked()))),
      tools: [{ name: "t", ...marked() }],
      system: [text("s", marked())],
    };
    assert.deepEqual(anthropic(full), []);
    assert.deepEqual(anthropic({ ...full, ...marked() }), ["/cache_control"]);
    const nested = messages(
      user(text("a")),
      assistant(call("1")),
      user(result("1", { content: [text("x", marked()), text("y", marked("2h"))] })),
    );
    assert.deepEqual(anthropic(nested), ["/messages/2/content/0/content/1/cache_control"]);
  });

  it("want one-hour breakpoints first, and none on thinking or on nothing", () => {
    const mixed = (first: string, second: string) => ({
      ...messages(user(text("a", marked(second)))),
      system: [text("s", marked(first))],
    });
    assert.deepEqual(anthropic(mixed("1h", "5m")), []);
    assert.deepEqual(anthropic(mixed("5m", "1h")), ["/messages/0/content/0/cache_control"]);
    const bad = messages(
      user(text("a")),
      assistant({ ...thinking, ...marked() }, text("b")),
      user(text("c")),
    );
    assert.deepEqual(anthropic(bad), ["/messages/1/content/0/cache_control"]);
  });
});

describe("the rules of Chat Completions", () => {
  const chat = (...list: unknown[]) => check("openai-chat", { model: "m", messages: list });
  const calls = (...ids: string[]) => ({
    role: "assistant",
    content: null,
    tool_calls: ids.map((id) => ({ id, type: "function", function: { name: "f", arguments: "{}" } })),
  });
  const tool = (id: string) => ({ role: "tool", tool_call_id: id, content: "x" });
  const ask = { role: "user", content: "a" };

  it("hold calls and results together", () => {
    assert.deepEqual(chat(ask, calls("1", "2"), tool("2"), tool("1"), ask), []);
    assert.deepEqual(chat(tool("1")), ["/messages/0"]);
    assert.deepEqual(chat(ask, calls("1"), ask, tool("1")), ["/messages/1/tool_calls/0", "/messages/3"]);
    assert.deepEqual(chat(ask, calls("1", "2"), tool("1")), ["/messages/1/tool_calls/1"]);
  });

  it("want content, and roles that exist", () => {
    assert.deepEqual(chat({ role: "assistant", content: null }), ["/messages/0/content"]);
    assert.deepEqual(chat({ role: "user", content: [] }), ["/messages/0/content"]);
    assert.deepEqual(chat({ role: "bot", content: "x" }), ["/messages/0/role"]);
    assert.deepEqual(check("openai-chat", { messages: [], prompt_cache_key: "k".repeat(65) }), [
      "/model",
      "/prompt_cache_key",
      "/messages",
    ]);
  });
});

describe("the rules of Responses", () => {
  const responses = (...input: unknown[]) => check("openai-responses", { model: "m", input });
  const made = (id: string) => ({ type: "function_call", call_id: id, name: "f", arguments: "{}" });
  const output = (id: string) => ({ type: "function_call_output", call_id: id, output: "x" });
  const reasoning = { type: "reasoning", summary: [], encrypted_content: "enc" };
  const ask = { role: "user", content: "a" };

  it("hold calls and outputs, reasoning and what it led to together", () => {
    assert.deepEqual(
      responses(ask, reasoning, made("1"), output("1"), { role: "assistant", content: "b" }),
      [],
    );
    assert.deepEqual(responses(output("1")), ["/input/0"]);
    assert.deepEqual(responses(made("1")), ["/input/0"]);
    assert.deepEqual(responses(output("1"), made("1")), ["/input/0", "/input/1"]);
    assert.deepEqual(responses(reasoning, ask), ["/input/0"]);
    assert.deepEqual(responses(ask, reasoning), ["/input/1"]);
  });

  it("cannot know what a conversation before it has called", () => {
    const body = { model: "m", previous_response_id: "resp_1", input: [output("1")] };
    assert.deepEqual(check("openai-responses", body), []);
    assert.deepEqual(check("openai-responses", { model: "m" }), ["/input"]);
    assert.deepEqual(check("openai-responses", { model: "m", input: "text" }), []);
  });
});

describe("what a rewrite broke", () => {
  const before = messages(
    user(text("a")),
    assistant(thinking, text("b")),
    user(text("c")),
    assistant({ ...thinking, signature: "b3RoZXI=" }, text("d")),
    user(text("e")),
  );
  const broke = (after: unknown) => rewriteProblems("anthropic-messages", bytes(before), bytes(after));

  it("is nothing, where only text changed or the oldest went", () => {
    assert.deepEqual(broke(before), []);
    assert.deepEqual(
      broke({ ...before, messages: [user(text("summary")), ...before.messages.slice(3)] }),
      [],
    );
  });

  it("is a sealed block that differs, or went alone", () => {
    const list = structuredClone(before.messages) as { content: Record<string, unknown>[] }[];
    list[1]!.content[0]!["thinking"] = "hm!";
    assert.deepEqual(places(broke({ ...before, messages: list })), ["/messages/1/content/0"]);
    const without = structuredClone(before.messages) as { content: unknown[] }[];
    without[3]!.content.shift();
    assert.deepEqual(places(broke({ ...before, messages: without })), ["/messages/1/content/0"]);
  });

  it("is not what was wrong before", () => {
    const wrong = messages(user(text("")), assistant(text("b")), user(text("")));
    const sent = messages(user(text("")), assistant(text("b")), user(text("")), user(text("")));
    assert.deepEqual(rewriteProblems("anthropic-messages", bytes(wrong), bytes(wrong)), []);
    assert.equal(rewriteProblems("anthropic-messages", bytes(wrong), bytes(sent)).length, 1);
  });

  it("lets the test kit's own conversations pass as they are", () => {
    for (const turns of conversations(30))
      for (const { dialect, body } of turns) assert.deepEqual(rewriteProblems(dialect, body, body), []);
  });
});

describe("tool results", () => {
  it("are found by their call in each dialect", () => {
    const anthropic = messages(user(result("1"), result("2", { content: [text("y")] })));
    assert.deepEqual(
      [...toolResults("anthropic-messages", bytes(anthropic))],
      [
        ["1", "x"],
        ["2", '[{"type":"text","text":"y"}]'],
      ],
    );
    const chat = { messages: [{ role: "tool", tool_call_id: "1", content: "x" }] };
    assert.deepEqual([...toolResults("openai-chat", bytes(chat))], [["1", "x"]]);
    const responses = { input: [{ type: "function_call_output", call_id: "1", output: "x" }] };
    assert.deepEqual([...toolResults("openai-responses", bytes(responses))], [["1", "x"]]);
  });
});

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import {
  anthropicRequest,
  openaiChatRequest,
  parseSession,
  readSession,
  responsesRequest,
} from "../../scripts/bench/session.ts";

const text = (value: string) => ({ type: "text", text: value });
const entry = (message: unknown) => JSON.stringify({ type: "message", message });
const usage = { input: 10, output: 5, cacheRead: 3, cacheWrite: 7, cost: { total: 0.25 } };

/** Two user turns, a tool call with its result, thinking with and without a signature, an aborted call, an orphan. */
const SESSION = [
  JSON.stringify({ type: "session", id: "s" }),
  entry({ role: "user", content: [text("please fix it")] }),
  entry({
    role: "assistant",
    model: "m",
    stopReason: "toolUse",
    usage,
    content: [
      { type: "thinking", thinking: "hm", thinkingSignature: "c2ln" },
      { type: "thinking", thinking: "unsigned", thinkingSignature: "" },
      text("reading"),
      { type: "toolCall", id: "call_1", name: "read", arguments: { path: "a.ts" } },
    ],
  }),
  entry({ role: "toolResult", toolCallId: "call_1", content: [text("content of a.ts")], isError: false }),
  entry({
    role: "assistant",
    stopReason: "aborted",
    content: [{ type: "toolCall", id: "call_2", name: "bash", arguments: {} }],
  }),
  JSON.stringify({ type: "model_change", modelId: "other" }),
  entry({ role: "bashExecution", command: "ls", output: "a.ts" }),
  entry({ role: "user", content: "go on" }),
  entry({ role: "assistant", content: [text("done")], stopReason: "stop" }),
].join("\n");

const turns = parseSession(SESSION, "session.jsonl");

function parsed(bytes: Buffer): Record<string, unknown> {
  return JSON.parse(bytes.toString("utf8")) as Record<string, unknown>;
}

test("a session is read into one turn per model call, with the billed usage", () => {
  const folder = mkdtempSync(join(tmpdir(), "session-"));
  try {
    const file = join(folder, "s.jsonl");
    writeFileSync(file, `${SESSION}\n`);
    assert.deepEqual(readSession(file), turns);
  } finally {
    rmSync(folder, { recursive: true });
  }
  assert.equal(turns.length, 3);
  assert.deepEqual(turns[0]?.usage, { input: 10, output: 5, cacheRead: 3, cacheWrite: 7, costUsd: 0.25 });
  assert.deepEqual(turns[1]?.usage, { input: 0, output: 0, cacheRead: 0, cacheWrite: 0, costUsd: undefined });
  assert.deepEqual(
    turns.map((turn) => turn.stopReason),
    ["toolUse", "aborted", "stop"],
  );
});

test("a tool call without a result, a result without a call and unsigned thinking are left out", () => {
  assert.deepEqual(
    turns[0]?.reply.map((part) => part.type),
    ["thinking", "text", "toolCall"],
  );
  assert.deepEqual(turns[1]?.reply, []);
  const orphan = [
    entry({ role: "toolResult", toolCallId: "no", content: [] }),
    entry({ role: "assistant", content: [] }),
  ];
  assert.deepEqual(parseSession(orphan.join("\n"), "x")[0]?.input, []);
});

test("an Anthropic request is everything before the reply, roles alternating, results first", () => {
  assert.deepEqual(parsed(anthropicRequest(turns, 2, { system: "S", tools: [], model: "M" })), {
    model: "M",
    max_tokens: 32_000,
    system: [{ type: "text", text: "S", cache_control: { type: "ephemeral" } }],
    messages: [
      { role: "user", content: [text("please fix it")] },
      {
        role: "assistant",
        content: [
          { type: "thinking", thinking: "hm", signature: "c2ln" },
          text("reading"),
          { type: "tool_use", id: "call_1", name: "read", input: { path: "a.ts" } },
        ],
      },
      {
        role: "user",
        content: [
          { type: "tool_result", tool_use_id: "call_1", content: "content of a.ts" },
          text("Ran `ls`:\na.ts"),
          { ...text("go on"), cache_control: { type: "ephemeral" } },
        ],
      },
    ],
    stream: true,
  });
});

test("a Chat Completions request has tool calls as strings and tool messages", () => {
  assert.deepEqual(
    parsed(openaiChatRequest(turns, 1, { system: "S", tools: [], model: "M", stream: false })),
    {
      model: "M",
      messages: [
        { role: "system", content: "S" },
        { role: "user", content: "please fix it" },
        {
          role: "assistant",
          content: "reading",
          tool_calls: [
            { id: "call_1", type: "function", function: { name: "read", arguments: '{"path":"a.ts"}' } },
          ],
        },
        { role: "tool", tool_call_id: "call_1", content: "content of a.ts" },
      ],
      stream: false,
    },
  );
});

test("a Responses request has calls and outputs as items of the input", () => {
  assert.deepEqual(parsed(responsesRequest(turns, 1, { system: "S", tools: [], model: "M" })), {
    model: "M",
    instructions: "S",
    input: [
      { role: "user", content: [{ type: "input_text", text: "please fix it" }] },
      { role: "assistant", content: [{ type: "output_text", text: "reading" }] },
      { type: "function_call", call_id: "call_1", name: "read", arguments: '{"path":"a.ts"}' },
      { type: "function_call_output", call_id: "call_1", output: "content of a.ts" },
    ],
    store: false,
    stream: true,
  });
});

test("without moving breakpoints each request begins with the bytes of the one before", () => {
  const bodies = turns.map((_, n) => anthropicRequest(turns, n, { cacheControl: false }).toString("utf8"));
  for (let n = 1; n < bodies.length; n++) {
    const before = bodies[n - 1]!;
    const messages = before.slice(0, before.lastIndexOf("]}]"));
    assert.ok(bodies[n]!.startsWith(messages), `request ${n}`);
  }
});

test("building a request twice gives the same bytes and leaves the turns as they were", () => {
  const copy = structuredClone(turns);
  for (const request of [anthropicRequest, openaiChatRequest, responsesRequest])
    assert.deepEqual(request(turns, 2), request(turns, 2));
  assert.deepEqual(turns, copy);
});

test("what cannot be read is refused with file and line", () => {
  assert.throws(() => parseSession(`${SESSION}\n{broken`, "f.jsonl"), /^Error: f\.jsonl:10: not JSON/);
  assert.throws(() => parseSession("[]", "f.jsonl"), /f\.jsonl:1: expected an object/);
  assert.throws(() => parseSession(JSON.stringify({ type: "message" }), "f"), /f:1: .*message\.role/);
  assert.throws(() => parseSession(entry({ role: "assistant", content: "x" }), "f"), /f:1: .*content array/);
  assert.throws(() => parseSession(entry({ role: "toolResult", content: [] }), "f"), /f:1: .*toolCallId/);
  assert.throws(() => anthropicRequest(turns, 3), /no request 3: it has 3/);
});

import assert from "node:assert/strict";
import { it } from "node:test";
import type { Dialect, SseEvent } from "@tokenman/plugin-sdk";
import { splitEvents } from "./events.ts";

const WRONG_VALUES = [
  "null",
  "true",
  "7",
  "-1e999",
  '"text"',
  "[]",
  "{}",
  "[[[]]]",
  '[{"type":null},7,null,"x"]',
];
const KEYS = [
  ...[
    "model",
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "messages",
    "input",
    "system",
    "instructions",
  ],
  ...[
    "tools",
    "functions",
    "mcp_servers",
    "prompt",
    "usage",
    "error",
    "__proto__",
    "constructor",
    "toString",
  ],
];

/** Every known key with every wrong value, alone and as a member of a message and of a block. */
function wrongTypes(): [string, Buffer][] {
  return WRONG_VALUES.map((value) => {
    const members = KEYS.map((key) => `"${key}":${value}`).join(",");
    const block = `{"type":"tool_result",${members},"content":${value},"source":${value},"tool_calls":${value}}`;
    const message = `{"role":${value},${members},"content":[${block},${value}],"tool_calls":[${block}],"summary":[${block}]}`;
    const text = `{${members},"messages":[${message},${value}],"input":[${message},${block}],"tools":[${block},${value}]}`;
    return [`${value} in the place of everything`, Buffer.from(text)];
  });
}

/** Bodies that a parser may stumble over. None of them may make a dialect throw. */
export const HOSTILE_BODIES: readonly (readonly [string, Buffer])[] = [
  ["nothing", Buffer.alloc(0)],
  ["white space", Buffer.from(" \n\t")],
  ["text that is not JSON", Buffer.from("hello, I am a body")],
  ["HTML", Buffer.from("<html><body>502</body></html>")],
  ["half a document", Buffer.from('{"model":"m","messages":[{"role":"user","content":"')],
  ["bytes that are not UTF-8", Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x22, 0xc3, 0x22, 0x7d])],
  ["a lone bracket", Buffer.from("{")],
  ["trailing garbage", Buffer.from('{"model":"m"} x')],
  ["a bad escape", Buffer.from('{"model":"\\x","messages":[{"role":"us\\q","content":"\\u12"}]}')],
  ["a bad escape in a key", Buffer.from('{"mod\\qel":"m","prompt":{"variables":{"\\q":"x"}}}')],
  [
    "__proto__ everywhere",
    Buffer.from('{"__proto__":{"model":"x"},"messages":[{"__proto__":{"role":"user"}}]}'),
  ],
  ["duplicate keys", Buffer.from('{"model":"a","model":7,"messages":"x","messages":[{"role":"user"}]}')],
  ["lone surrogates", Buffer.from('{"model":"\\ud800","messages":[{"role":"user","content":"\\udfff"}]}')],
  [
    "big integers",
    Buffer.from('{"max_tokens":123456789012345678901234567890,"usage":{"input_tokens":1e400}}'),
  ],
  ["deep nesting", Buffer.from(`{"messages":${"[".repeat(10_000)}${"]".repeat(10_000)}}`)],
  [
    "deep nesting of results",
    Buffer.from(
      `{"messages":[{"role":"user","content":${'[{"type":"tool_result","content":'.repeat(10_000)}1${"}]".repeat(10_000)}}]}`,
    ),
  ],
  ["a byte order mark", Buffer.from('\ufeff{"model":"m"}')],
  ...wrongTypes(),
];

/** Events of every shape: named and unnamed, with data of wrong types, without data, cut, and oversize. */
export const HOSTILE_EVENTS: readonly SseEvent[] = (() => {
  const names = [
    ...["message_start", "message_delta", "message_stop", "error", "ping", "content_block_delta", "unknown"],
    ...[
      "response.completed",
      "response.failed",
      "response.incomplete",
      "response.created",
      "response.output_text.delta",
    ],
  ];
  let stream = "";
  for (const value of [...WRONG_VALUES, "not json", "[DONE]", ""]) {
    const members = KEYS.map((key) => `"${key}":${value}`).join(",");
    const whole = `{"type":${value},"message":{${members}},"response":{${members}},${members}}`;
    for (const name of names) {
      stream += `event: ${name}\ndata: ${value}\n\nevent: ${name}\ndata: ${whole}\n\n`;
      stream += `event: ${name}\n\ndata:{"type":"${name}","usage":${value}}\r\n\r\n`;
    }
    stream += `data: ${value}\n\n: comment ${value}\n\nid: 7\n\nretry: x\n\n`;
  }
  const oversize = `event: message_start\ndata: ${"x".repeat(500)}\n\n`;
  return [...splitEvents(stream), ...splitEvents(oversize, { maxEventBytes: 64 })];
})();

/** Tests that none of it makes one of the dialects throw, or say what it may not. */
export function survivesHostileInput(dialects: readonly Dialect[]): void {
  for (const [name, bytes] of HOSTILE_BODIES) {
    it(`survives ${name}`, () => {
      for (const one of dialects) {
        const found = one.describe(bytes);
        assert.ok(found === undefined || ["none", "client", "server"].includes(found.tools));
        assert.ok(Array.isArray(one.segments(bytes)));
        one.judgeError(500, ["x"], bytes);
        const reader = one.usageReader();
        reader.body(bytes, 200);
        reader.usage();
      }
    });
  }

  it("survives events of any content", () => {
    for (const one of dialects) {
      const reader = one.usageReader();
      for (const event of HOSTILE_EVENTS) {
        reader.event(event);
        assert.ok(["content", "idle", "error", "terminal"].includes(one.judgeEvent(event).kind));
      }
      reader.usage();
    }
  });
}

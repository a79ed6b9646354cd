import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { brotliCompressSync, gzipSync, zstdCompressSync } from "node:zlib";
import { headerValue, type ReplyInit, speaks } from "@tokenman/plugin-sdk";
import { bodyOf, dialects } from "../support/ask-provider.ts";
import { splitEvents } from "../support/events.ts";
import { HOSTILE_BODIES } from "../support/hostile.ts";
import { CHAT, MESSAGES, mock, user } from "../support/mock-provider.ts";

const json = async (reply: ReplyInit) => JSON.parse((await bodyOf(reply)).toString());

describe("mock", () => {
  it("speaks both formats and serves mock models only", async () => {
    const { provider } = await mock();
    assert.equal(speaks(provider, "anthropic") && speaks(provider, "openai"), true);
    assert.deepEqual(provider.models, ["mock", "mock-*"]);
    assert.equal(provider.auth, "none");
  });

  it("answers the same bytes to the same request, in every dialect, streamed and not", async () => {
    for (const stream of [false, true]) {
      const requests: [string, object][] = [
        [MESSAGES, { model: "mock", max_tokens: 50, messages: [user("hi")], stream }],
        [CHAT, { model: "mock", messages: [user("hi")], stream }],
        ["/v1/responses", { model: "mock", input: "hi", stream }],
      ];
      for (const [path, body] of requests) {
        const [first, second] = [await mock(), await mock()];
        assert.deepEqual(
          await bodyOf(await first.ask(path, body)),
          await bodyOf(await second.ask(path, body)),
        );
      }
    }
  });

  it("follows its config, and the model's name before it", async () => {
    const { ask } = await mock({ mode: "fixed", fixed_text: "fixed!" });
    const say = async (model: string) =>
      (await json(await ask(MESSAGES, { model, max_tokens: 50, messages: [user("hi")] }))).content[0].text;
    assert.equal(await say("mock"), "fixed!");
    assert.equal(await say("claude-opus-4-5"), "fixed!");
    assert.equal(await say("mock-echo"), "hi");
  });

  it("stops at a stop sequence and at the cap", async () => {
    const { ask } = await mock();
    const messages = [user("one STOP two")];
    const stopped = await json(
      await ask(MESSAGES, { model: "mock", max_tokens: 50, messages, stop_sequences: ["two", "STOP"] }),
    );
    assert.equal(stopped.content[0].text, "one ");
    assert.deepEqual([stopped.stop_reason, stopped.stop_sequence], ["stop_sequence", "STOP"]);
    const capped = await json(
      await ask(MESSAGES, { model: "mock", max_tokens: 1, messages: [user("añ\u{1f600}xyz")] }),
    );
    assert.equal(capped.content[0].text, "añ", "cut between characters");
    assert.equal(capped.stop_reason, "max_tokens");
  });

  it("cuts a text into as many pieces as the name says, never inside a character", async () => {
    const { ask } = await mock();
    const text = "\u{1f600}\u{1f601}\u{1f602}\u{1f603}\u{1f604}";
    const reply = await ask(MESSAGES, {
      model: "mock-chunked-3",
      max_tokens: 50,
      messages: [user(text)],
      stream: true,
    });
    const deltas = splitEvents(await bodyOf(reply)).flatMap((event) => {
      const data = event.json() as { delta?: { text?: string } };
      return data.delta?.text === undefined ? [] : [data.delta.text];
    });
    assert.equal(deltas.length, 3);
    assert.equal(deltas.join(""), text);
    assert.ok(deltas.every((delta) => delta.isWellFormed()));
  });

  it("sends byte by byte where the name says so, streamed and not", async () => {
    const { ask } = await mock();
    for (const stream of [true, false]) {
      const body = (model: string) => ({ model, messages: [user("hi")], stream });
      const reply = await ask(CHAT, body("mock-bytes-1"));
      const chunks: Buffer[] = [];
      for await (const chunk of reply.body as AsyncIterable<Buffer>) chunks.push(chunk);
      assert.ok(chunks.every((chunk) => chunk.length === 1));
      const plain = await bodyOf(await ask(CHAT, body("mock-bytes-1000000")));
      assert.equal(
        Buffer.concat(chunks).length,
        plain.length - "000000".length * count(plain, "mock-bytes-1000000"),
      );
    }
  });

  it("waits before the head and between events", async () => {
    const { ask, slept } = await mock({ head_delay_ms: 7 });
    const body = { max_tokens: 50, messages: [user("hi")], stream: true };
    const events = splitEvents(await bodyOf(await ask(MESSAGES, { ...body, model: "mock-slow-250ms" })));
    assert.deepEqual(slept, Array(events.length).fill(250));
    slept.length = 0;
    await bodyOf(await ask(MESSAGES, { ...body, model: "mock" }));
    assert.deepEqual(slept, [7]);
    slept.length = 0;
    await bodyOf(await ask(MESSAGES, { ...body, model: "mock-tools-slow-2s-chunked-1" }));
    assert.ok(slept.length > 0 && slept.every((ms) => ms === 2_000));
  });

  it("stops at once when nobody wants the answer any more", async () => {
    const { ask } = await mock();
    const controller = new AbortController();
    const body = { model: "mock-chunked-50", messages: [user("x".repeat(500))], stream: true };
    const reply = await ask(CHAT, body, { signal: controller.signal });
    let seen = 0;
    for await (const _ of reply.body as AsyncIterable<Buffer>) if (++seen === 3) controller.abort();
    assert.equal(seen, 3);
    const late = ask(CHAT, { ...body, model: "mock-slow" }, { signal: controller.signal });
    await assert.rejects(late, { name: "AbortError" });
  });

  it("fails with the status in the name, and says when to come back where vendors do", async () => {
    const { ask } = await mock({ retry_after_seconds: 3 });
    const body = { max_tokens: 5, messages: [user("x")] };
    const anthropic = await ask(MESSAGES, { ...body, model: "mock-fail-529" });
    assert.equal(anthropic.status, 529);
    assert.equal(headerValue(anthropic.headers ?? [], "retry-after"), "3");
    const { type, error, request_id } = await json(anthropic);
    assert.deepEqual([type, error.type], ["error", "overloaded_error"]);
    assert.equal(headerValue(anthropic.headers ?? [], "request-id"), request_id);
    const openai = await ask(CHAT, { ...body, model: "mock-fail-429", stream: true });
    assert.equal(openai.status, 429);
    assert.equal((await json(openai)).error.code, "rate_limit_exceeded");
    const plain = await ask(CHAT, { ...body, model: "mock-fail-500" });
    assert.equal(headerValue(plain.headers ?? [], "retry-after"), undefined);
  });

  it("breaks off in the middle of a body", async () => {
    const { ask } = await mock();
    for (const stream of [true, false]) {
      const reply = await ask(MESSAGES, {
        model: "mock-fail-midstream",
        max_tokens: 5,
        messages: [user("x")],
        stream,
      });
      assert.equal(reply.status, 200);
      let bytes = 0;
      await assert.rejects(
        async () => {
          for await (const chunk of reply.body as AsyncIterable<Buffer>) bytes += chunk.length;
        },
        { code: "TM_UPSTREAM_CUT" },
      );
      assert.ok(bytes > 0);
    }
  });

  it("is overloaded inside a 200, as the dialects' own judges see it", async () => {
    const { ask } = await mock();
    for (const [path, name] of [
      [MESSAGES, "anthropic-messages"],
      [CHAT, "openai-chat"],
      ["/v1/responses", "openai-responses"],
    ] as const) {
      const body = {
        model: "mock-overloaded",
        max_tokens: 5,
        messages: [user("x")],
        input: "x",
        stream: true,
      };
      const reply = await ask(path, body);
      assert.equal(reply.status, 200);
      const [first] = splitEvents(await bodyOf(reply));
      const verdict = dialects.find((one) => one.name === name)!.judgeEvent(first!);
      assert.equal(verdict.kind === "error" && verdict.retryable, true, name);
    }
  });

  it("ends every regular stream with the dialect's terminal event", async () => {
    const { ask } = await mock();
    for (const [path, name] of [
      [MESSAGES, "anthropic-messages"],
      [CHAT, "openai-chat"],
      ["/v1/responses", "openai-responses"],
    ] as const) {
      for (const max of [1, 50]) {
        const cap = { max_tokens: max, max_output_tokens: max };
        const reply = await ask(path, {
          model: "mock",
          ...cap,
          messages: [user("a long text")],
          input: "a long text",
          stream: true,
        });
        const dialect = dialects.find((one) => one.name === name)!;
        const kinds = splitEvents(await bodyOf(reply)).map((event) => dialect.judgeEvent(event).kind);
        assert.equal(kinds.at(-1), "terminal");
        assert.equal(kinds.filter((kind) => kind === "terminal").length, 1);
      }
    }
  });

  it("reads Responses-shaped bodies that are posted to chat", async () => {
    const { ask } = await mock();
    const reply = await json(
      await ask(CHAT, { model: "mock", input: [user([{ type: "input_text", text: "hi" }])] }),
    );
    assert.equal(reply.choices[0].message.content, "hi");
  });

  it("reads compressed bodies", async () => {
    const { ask } = await mock();
    const body = Buffer.from(JSON.stringify({ model: "mock", messages: [user("packed")] }));
    for (const [encoding, packed] of [
      ["gzip", gzipSync(body)],
      ["br", brotliCompressSync(body)],
      ["zstd", zstdCompressSync(body)],
    ] as const) {
      const reply = await ask(CHAT, "", { body: packed, headers: ["Content-Encoding", encoding] });
      assert.equal((await json(reply)).choices[0].message.content, "packed");
    }
    assert.equal((await ask(CHAT, "{}", { headers: ["content-encoding", "gzip"] })).status, 400);
    assert.equal((await ask(CHAT, "{}", { headers: ["content-encoding", "snappy"] })).status, 415);
  });

  it("answers an unknown path with the vendor's 404", async () => {
    const { ask } = await mock();
    assert.equal((await ask("/v1/files", "")).status, 404);
  });

  for (const [name, bytes] of HOSTILE_BODIES) {
    it(`survives ${name}`, async () => {
      const { ask } = await mock();
      for (const path of [MESSAGES, "/v1/messages/count_tokens", CHAT, "/v1/responses", "/v1/embeddings"]) {
        const reply = await ask(path, "", { body: bytes });
        assert.ok(reply.status === 200 || reply.status === 400, `${path}: ${reply.status}`);
        await bodyOf(reply);
      }
    });
  }
});

function count(bytes: Buffer, text: string): number {
  return bytes.toString().split(text).length - 1;
}

describe("mock: what the Messages API refuses", () => {
  const marked = (text: string, ttl?: string) => ({
    type: "text",
    text,
    cache_control: { type: "ephemeral", ...(ttl !== undefined && { ttl }) },
  });
  const call = { role: "assistant", content: [{ type: "tool_use", id: "t1", name: "f", input: {} }] };
  const result = (id: string) => user([{ type: "tool_result", tool_use_id: id, content: "x" }]);

  const cases: readonly (readonly [string, object, RegExp])[] = [
    ["no model", { model: undefined }, /^model: /],
    ["no max_tokens", { max_tokens: undefined }, /^max_tokens: /],
    ["no messages", { messages: undefined }, /^messages: /],
    ["no message", { messages: [] }, /^messages: /],
    ["an unknown role", { messages: [{ role: "tool", content: "x" }] }, /^messages\.0\.role: /],
    [
      "five breakpoints",
      { system: [marked("a"), marked("b")], messages: [user([marked("c"), marked("d"), marked("e")])] },
      /at most 4 .* found 5/,
    ],
    [
      "a fifth breakpoint beside the messages",
      {
        cache_control: { type: "ephemeral" },
        messages: [user([marked("a"), marked("b"), marked("c"), marked("d")])],
      },
      /at most 4/,
    ],
    [
      "a longer time behind a shorter one",
      { system: [marked("a")], messages: [user([marked("b", "1h")])] },
      /"1h"/,
    ],
    [
      "a breakpoint on thinking",
      {
        messages: [
          user("x"),
          {
            role: "assistant",
            content: [{ type: "thinking", thinking: "t", cache_control: { type: "ephemeral" } }],
          },
        ],
      },
      /thinking\.cache_control/,
    ],
    ["a result without its call", { messages: [user("x"), result("t1")] }, /no tool_use/],
    ["a result too late", { messages: [user("x"), call, result("t1"), result("t1")] }, /no tool_use/],
    ["a call without its result", { messages: [user("x"), call, user("y")] }, /without a tool_result.*t1/],
  ];
  for (const [name, body, message] of cases) {
    it(name, async () => {
      const { ask } = await mock();
      const reply = await ask(MESSAGES, { model: "mock", max_tokens: 9, messages: [user("x")], ...body });
      assert.equal(reply.status, 400);
      const { type, error } = await json(reply);
      assert.deepEqual([type, error.type], ["error", "invalid_request_error"]);
      assert.match(error.message, message);
    });
  }

  it("takes four breakpoints, the longer-lived first, and a call with its result", async () => {
    const { ask } = await mock();
    const reply = await ask(MESSAGES, {
      model: "mock",
      max_tokens: 9,
      system: [marked("a", "1h"), marked("b")],
      messages: [
        user([marked("c")]),
        call,
        user([{ type: "tool_result", tool_use_id: "t1", content: [marked("d")] }]),
      ],
    });
    assert.equal(reply.status, 200);
  });

  it("refuses for OpenAI what is missing, or out of order", async () => {
    const { ask } = await mock();
    const refusal = async (path: string, body: object) => {
      const reply = await ask(path, body);
      assert.equal(reply.status, 400);
      return (await json(reply)).error;
    };
    assert.equal((await refusal(CHAT, { messages: [user("x")] })).param, "model");
    assert.equal((await refusal(CHAT, { model: "mock" })).param, "messages");
    assert.equal((await refusal("/v1/responses", { model: "mock" })).param, "input");
    assert.equal((await refusal("/v1/embeddings", { model: "mock" })).param, "input");
    const orphan = { role: "tool", tool_call_id: "c9", content: "x" };
    assert.match((await refusal(CHAT, { model: "mock", messages: [user("x"), orphan] })).message, /"c9"/);
    const output = { type: "function_call_output", call_id: "c9", output: "x" };
    assert.match((await refusal("/v1/responses", { model: "mock", input: [output] })).message, /"c9"/);
    assert.equal(
      (await ask("/v1/responses", { model: "mock", input: [output], previous_response_id: "r" })).status,
      200,
    );
  });
});

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { SseSplitter } from "@tokenman/plugin-sdk";
import { recordingUpstream, steps, textScript } from "@tokenman/plugin-sdk/testkit";
import OpenAI from "openai";
import { MessageAssembler } from "../../plugins/stream-sessions/anthropic.ts";
import type { Assembler } from "../../plugins/stream-sessions/assembler.ts";
import { ChatAssembler } from "../../plugins/stream-sessions/openai.ts";
import { startTokenman } from "../support/kernel.ts";
import { ANTHROPIC, CHAT, SessionClient } from "../support/stream-session.ts";

const limits = { timeout: 30_000 };

/** What a session keeps of a stream. */
function kept(assembler: Assembler, stream: string): Record<string, unknown> {
  const splitter = new SseSplitter();
  splitter.push(Buffer.from(stream), (event) => {
    if (event.hasData) assembler.event(event);
  });
  const [message] = assembler.finish();
  return JSON.parse(message!) as Record<string, unknown>;
}
/** Answers any request with one stream. */
const always = (stream: string) => async () =>
  new Response(stream, { headers: { "Content-Type": "text/event-stream" } });
const MODEL = { model: "m", messages: [{ role: "user" as const, content: "hi" }] };

describe("a reply that a stream session puts together", () => {
  it("is what Anthropic's own SDK makes of it", limits, async () => {
    const events: object[] = [
      {
        type: "message_start",
        message: {
          id: "m",
          type: "message",
          role: "assistant",
          model: "m",
          content: [],
          usage: { input_tokens: 1, output_tokens: 1 },
        },
      },
    ];
    const block = (index: number, start: object, ...deltas: readonly object[]): void => {
      events.push({ type: "content_block_start", index, content_block: start });
      for (const delta of deltas) events.push({ type: "content_block_delta", index, delta });
      events.push({ type: "content_block_stop", index });
    };
    block(
      0,
      { type: "thinking", thinking: "", signature: "" },
      { type: "thinking_delta", thinking: "so \u{1f600}" },
      { type: "thinking_delta", thinking: '\n"then"' },
      { type: "signature_delta", signature: "abc==" },
    );
    block(1, { type: "redacted_thinking", data: "xyz" });
    block(
      2,
      { type: "text", text: "", citations: [] },
      { type: "text_delta", text: "The " },
      { type: "citations_delta", citation: { type: "char_location", cited_text: "x", document_index: 0 } },
      { type: "text_delta", text: "grass" },
    );
    block(
      3,
      { type: "server_tool_use", id: "s1", name: "web_search", input: {} },
      { type: "input_json_delta", partial_json: '{"query":' },
      { type: "input_json_delta", partial_json: ' "a\\u0062"}' },
    );
    block(4, {
      type: "web_search_tool_result",
      tool_use_id: "s1",
      content: [{ type: "web_search_result", url: "u" }],
    });
    block(
      5,
      { type: "tool_use", id: "t1", name: "f", input: {} },
      { type: "input_json_delta", partial_json: "" },
    );
    events.push({ type: "message_delta", delta: { stop_reason: "tool_use" }, usage: { output_tokens: 9 } });
    events.push({ type: "message_stop" });
    const stream = events
      .map((event) => `event: ${(event as { type: string }).type}\ndata: ${JSON.stringify(event)}\n\n`)
      .join("");
    const sdk = new Anthropic({ apiKey: "x", fetch: always(stream), maxRetries: 0 });
    const message = await sdk.messages.stream({ ...MODEL, max_tokens: 9 }).finalMessage();
    const own = JSON.parse(JSON.stringify(message.content)) as unknown;
    assert.deepEqual(kept(new MessageAssembler(), stream), { role: "assistant", content: own });
  });

  it("is what OpenAI's own SDK makes of it", limits, async () => {
    const deltas: readonly object[] = [
      { role: "assistant", content: "" },
      { content: "one " },
      { content: "\u{1f600}two" },
      { tool_calls: [{ index: 0, id: "c1", type: "function", function: { name: "f", arguments: "" } }] },
      { tool_calls: [{ index: 0, function: { arguments: '{"a"' } }] },
      { tool_calls: [{ index: 0, function: { arguments: ":1}" } }] },
      { tool_calls: [{ index: 1, id: "c2", type: "function", function: { name: "g", arguments: "{}" } }] },
    ];
    const chunk = (delta: object, reason: string | null = null): string =>
      `data: ${JSON.stringify({ id: "c", object: "chat.completion.chunk", created: 1, model: "m", choices: [{ index: 0, delta, finish_reason: reason }] })}\n\n`;
    const stream = `${deltas.map((delta) => chunk(delta)).join("")}${chunk({}, "tool_calls")}data: [DONE]\n\n`;
    const sdk = new OpenAI({ apiKey: "x", fetch: always(stream), maxRetries: 0 });
    const { role, content, tool_calls } = await sdk.chat.completions.stream(MODEL).finalMessage();
    const calls = tool_calls?.flatMap((call) => {
      if (call.type !== "function") return [];
      const { name, arguments: text } = call.function;
      return [{ id: call.id, type: call.type, function: { name, arguments: text } }];
    });
    assert.deepEqual(kept(new ChatAssembler(), stream), { role, content, tool_calls: calls });
  });
});

describe("many stream sessions at once", () => {
  it("each hold their own conversation, through reloads", limits, async () => {
    const turns = 4;
    await using upstream = await recordingUpstream();
    const base = `api_base = "${upstream.url}"\nauth = "client"\n`;
    await using tokenman = await startTokenman({
      config: `[providers.anthropic]\n${base}[providers.openai]\n${base}`,
    });
    const run = async (number: number): Promise<void> => {
      const headers = number % 2 === 0 ? CHAT : ANTHROPIC;
      const session = await SessionClient.create(tokenman.proxy, headers, { model: "m" });
      let last = 0;
      for (let turn = 1; turn <= turns; turn++) {
        const sent = await session.send({ content: `session ${number}, turn ${turn}` });
        assert.equal(sent.status, 202, sent.body.toString());
        for (let ended = false; !ended; ) {
          // A reload ends the stream between two turns: what follows is had by coming back.
          await using events = session.events(last);
          for (let event = await events.next(); event !== undefined && !ended; event = await events.next()) {
            assert.equal(Number(event.id), last + 1);
            last++;
            assert.notEqual(event.event, "tokenman.turn.failed", event.data);
            ended = event.event === "tokenman.turn.completed";
            if (ended) break;
          }
        }
      }
      await session.delete();
    };
    const running = Promise.all(Array.from({ length: 24 }, (_, number) => run(number)));
    for (let reload = 0; reload < 5; reload++) assert.equal((await tokenman.reload("test")).ok, true);
    await running;
    assert.equal(upstream.requests.length, 24 * turns);
    for (const request of upstream.requests) {
      const { messages } = request.json() as { messages: { role: string; content: unknown }[] };
      const asked = messages.filter(({ role }) => role === "user").map(({ content }) => String(content));
      const number = /session (\d+)/.exec(asked[0]!)?.[1];
      assert.deepEqual(
        asked,
        asked.map((_, index) => `session ${number}, turn ${index + 1}`),
      );
      assert.equal(messages.length, 2 * asked.length - 1);
    }
    assert.equal(tokenman.status().activeExchanges, 0);
  });

  it("do not outlive their deletion in the midst of a reply", limits, async () => {
    await using upstream = await recordingUpstream({ script: textScript() });
    const base = `api_base = "${upstream.url}"\nauth = "client"\n`;
    await using tokenman = await startTokenman({ config: `[providers.openai]\n${base}` });
    upstream.script(steps((call) => call.closed));
    const sessions = await Promise.all(
      Array.from({ length: 20 }, () => SessionClient.create(tokenman.proxy, CHAT, { model: "m" })),
    );
    await Promise.all(sessions.map((session) => session.send({ content: "hi" })));
    await upstream.request(20);
    const readers = sessions.map((session) => session.events());
    await Promise.all(readers.map((reader) => reader.status()));
    await Promise.all(sessions.map((session) => session.delete()));
    for (const reader of readers) assert.equal((await reader.rest()).at(-1)?.event, "tokenman.closed");
    await tokenman.kernel.shutdown({ drainMs: 20_000, reason: "nothing is under way any more" });
    assert.equal(tokenman.status().activeExchanges, 0);
  });
});

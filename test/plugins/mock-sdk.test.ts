import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import Anthropic from "@anthropic-ai/sdk";
import type { Provider } from "@tokenman/plugin-sdk";
import { generateText, jsonSchema, Output, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import mock from "../../plugins/mock/index.ts";
import { providerFetch } from "../support/ask-provider.ts";
import { setUp } from "../support/fake-setup.ts";

// The mock needs no max output tokens; the SDK warns that it does not know the model.
(globalThis as { AI_SDK_LOG_WARNINGS?: boolean }).AI_SDK_LOG_WARNINGS = false;

const setup = await setUp(mock, { config: { retry_after_seconds: 0 } });
const provider = setup.contributed("provider")[0] as Provider;
const fetch = providerFetch(provider);
const anthropic = new Anthropic({ apiKey: "sk-ant-api03-x", baseURL: "http://mock", fetch, maxRetries: 0 });
const openai = new OpenAI({ apiKey: "sk-x", baseURL: "http://mock/v1", fetch, maxRetries: 0 });

const SCHEMA = {
  type: "object" as const,
  properties: { city: { type: "string" }, days: { type: "integer", minimum: 3 }, unit: { enum: ["C", "F"] } },
  required: ["city", "days"],
};

describe("mock through @anthropic-ai/sdk", () => {
  const say = (content: string) => [{ role: "user" as const, content }];

  it("answers, and counts what count_tokens counts", async () => {
    const params = { model: "mock", messages: say("hello there"), system: "be good" };
    const message = await anthropic.messages.create({ ...params, max_tokens: 100 });
    assert.deepEqual(message.content, [{ type: "text", text: "hello there" }]);
    assert.equal(message.stop_reason, "end_turn");
    const counted = await anthropic.messages.countTokens(params);
    assert.equal(counted.input_tokens, message.usage.input_tokens);
    assert.equal(message._request_id?.startsWith("req_mock_"), true);
  });

  it("streams the same message", async () => {
    const params = { model: "mock", max_tokens: 100, messages: say("naïve \u{1f600} ".repeat(20)) };
    const streamed = await anthropic.messages.stream(params).finalMessage();
    const whole = await anthropic.messages.create(params);
    assert.deepEqual(
      streamed.content.map((block) => block.type === "text" && block.text),
      [params.messages[0]!.content],
    );
    assert.equal(streamed.usage.output_tokens, whole.usage.output_tokens);
  });

  it("calls a tool, and answers with its result", async () => {
    const tools = [{ name: "weather", input_schema: SCHEMA }];
    const asked = say("Rome");
    for (const isStream of [false, true]) {
      const params = { model: "mock-tools", max_tokens: 100, tools, messages: asked };
      const message = isStream
        ? await anthropic.messages.stream(params).finalMessage()
        : await anthropic.messages.create(params);
      assert.equal(message.stop_reason, "tool_use");
      const [call] = message.content;
      assert.ok(call?.type === "tool_use");
      assert.deepEqual(call.input, { city: "Rome", days: 3 });
      const answered = await anthropic.messages.create({
        ...params,
        messages: [
          ...asked,
          { role: "assistant", content: message.content as Anthropic.ContentBlockParam[] },
          { role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: "sunny" }] },
        ],
      });
      assert.deepEqual(
        answered.content.map((block) => block.type === "text" && block.text),
        ["weather answered: sunny"],
      );
    }
  });

  it("fails in the vendor's shape", async () => {
    const create = (model: string) => anthropic.messages.create({ model, max_tokens: 9, messages: say("x") });
    await assert.rejects(create("mock-fail-429"), Anthropic.RateLimitError);
    await assert.rejects(
      create("mock-fail-529"),
      (error) => error instanceof Anthropic.APIError && error.status === 529,
    );
    await assert.rejects(create("mock-fail-500"), Anthropic.InternalServerError);
    const stream = anthropic.messages.stream({ model: "mock-overloaded", max_tokens: 9, messages: say("x") });
    await assert.rejects(stream.finalMessage(), /overloaded/);
    const cut = anthropic.messages.stream({
      model: "mock-fail-midstream",
      max_tokens: 9,
      messages: say("x"),
    });
    await assert.rejects(cut.finalMessage());
  });

  it("lists and retrieves models", async () => {
    const ids: string[] = [];
    for await (const model of anthropic.models.list()) ids.push(model.id);
    assert.ok(ids.includes("mock-tools"));
    assert.equal((await anthropic.models.retrieve("mock-echo")).type, "model");
    await assert.rejects(anthropic.models.retrieve("claude-x"), Anthropic.NotFoundError);
  });
});

describe("mock through openai", () => {
  const say = (content: string) => [{ role: "user" as const, content }];

  it("chats", async () => {
    const reply = await openai.chat.completions.create({ model: "mock", messages: say("hello there") });
    assert.equal(reply.choices[0]?.message.content, "hello there");
    assert.equal(reply.choices[0]?.finish_reason, "stop");
    assert.equal(reply.usage?.total_tokens, reply.usage!.prompt_tokens + reply.usage!.completion_tokens);
  });

  it("streams a chat, with usage only where it was asked for", async () => {
    for (const include_usage of [true, false]) {
      const stream = openai.chat.completions.stream({
        model: "mock-chunked-7",
        messages: say("one two three four five"),
        stream_options: { include_usage },
      });
      const chunks = [];
      for await (const chunk of stream) chunks.push(chunk);
      const final = await stream.finalChatCompletion();
      assert.equal(final.choices[0]?.message.content, "one two three four five");
      assert.equal(chunks.filter((chunk) => chunk.choices[0]?.delta.content).length, 7);
      assert.equal(chunks.at(-1)?.usage?.completion_tokens, include_usage ? 6 : undefined);
    }
  });

  it("calls a function in a chat, and answers with its result", async () => {
    const tools = [{ type: "function" as const, function: { name: "weather", parameters: SCHEMA } }];
    const stream = openai.chat.completions.stream({ model: "mock-tools", messages: say("Rome"), tools });
    const { choices } = await stream.finalChatCompletion();
    assert.equal(choices[0]?.finish_reason, "tool_calls");
    const call = choices[0]!.message.tool_calls![0]!;
    assert.ok(call.type === "function");
    assert.deepEqual(JSON.parse(call.function.arguments), { city: "Rome", days: 3 });
    const answered = await openai.chat.completions.create({
      model: "mock-tools",
      tools,
      messages: [
        ...say("Rome"),
        choices[0]!.message,
        { role: "tool", tool_call_id: call.id, content: "sunny" },
      ],
    });
    assert.equal(answered.choices[0]?.message.content, "weather answered: sunny");
  });

  it("responds", async () => {
    const reply = await openai.responses.create({ model: "mock", input: "hello", instructions: "be good" });
    assert.equal(reply.output_text, "hello");
    assert.equal(reply.status, "completed");
  });

  it("streams a response with gapless sequence numbers", async () => {
    const stream = openai.responses.stream({
      model: "mock",
      input: "a rather long text, for a mock ".repeat(4),
    });
    const events = [];
    for await (const event of stream) events.push(event);
    const final = await stream.finalResponse();
    assert.equal(final.output_text, "a rather long text, for a mock ".repeat(4));
    assert.deepEqual(
      events.map((event) => event.sequence_number),
      events.map((_, index) => index),
    );
    const types = events.map((event) => event.type);
    assert.deepEqual(types.slice(0, 4), [
      "response.created",
      "response.in_progress",
      "response.output_item.added",
      "response.content_part.added",
    ]);
    assert.deepEqual(types.slice(-4), [
      "response.output_text.done",
      "response.content_part.done",
      "response.output_item.done",
      "response.completed",
    ]);
  });

  it("calls a function in a response", async () => {
    const tools = [{ type: "function" as const, name: "weather", parameters: SCHEMA, strict: false }];
    const final = await openai.responses
      .stream({ model: "mock-tools", input: "Rome", tools })
      .finalResponse();
    const [call] = final.output;
    assert.ok(call?.type === "function_call");
    const answered = await openai.responses.create({
      model: "mock-tools",
      tools,
      input: [
        { role: "user", content: "Rome" },
        { type: "function_call", call_id: call.call_id, name: call.name, arguments: call.arguments },
        { type: "function_call_output", call_id: call.call_id, output: "sunny" },
      ],
    });
    assert.equal(answered.output_text, "weather answered: sunny");
  });

  it("ends early at the cap", async () => {
    const reply = await openai.responses.create({
      model: "mock",
      input: "x".repeat(100),
      max_output_tokens: 16,
    });
    assert.equal(reply.status, "incomplete");
    assert.equal(reply.output_text, "x".repeat(64));
    const chat = await openai.chat.completions.create({
      model: "mock",
      messages: say("x".repeat(99)),
      max_tokens: 3,
    });
    assert.equal(chat.choices[0]?.finish_reason, "length");
    assert.equal(chat.usage?.completion_tokens, 3);
  });

  it("embeds as unit vectors, in base64 as the SDK asks by itself, and in numbers", async () => {
    const params = { model: "mock", input: ["a", "b"], dimensions: 64 };
    const packed = await openai.embeddings.create(params);
    const plain = await openai.embeddings.create({ ...params, encoding_format: "float" });
    assert.equal(packed.data.length, 2);
    for (const [index, { embedding }] of packed.data.entries()) {
      assert.equal(embedding.length, 64);
      assert.deepEqual(embedding, plain.data[index]?.embedding);
      const length = Math.hypot(...embedding);
      assert.ok(Math.abs(length - 1) < 1e-6);
    }
    assert.notDeepEqual(packed.data[0]?.embedding, packed.data[1]?.embedding);
    assert.equal(
      (await openai.embeddings.create({ model: "mock", input: "a" })).data[0]?.embedding.length,
      1536,
    );
  });

  it("fails in the vendor's shape", async () => {
    const create = (model: string) => openai.chat.completions.create({ model, messages: say("x") });
    await assert.rejects(create("mock-fail-429"), OpenAI.RateLimitError);
    await assert.rejects(create("mock-fail-500"), OpenAI.InternalServerError);
    await assert.rejects(
      create("mock-overloaded"),
      (error) => error instanceof OpenAI.APIError && error.status === 503,
    );
    const overloaded = openai.chat.completions.stream({ model: "mock-overloaded", messages: say("x") });
    await assert.rejects(overloaded.finalChatCompletion(), /overloaded/);
    await assert.rejects(openai.responses.stream({ model: "mock-overloaded", input: "x" }).finalResponse());
    await assert.rejects(
      openai.chat.completions.stream({ model: "mock-fail-midstream", messages: say("x") }).done(),
    );
    await assert.rejects(create("mock-fail-midstream"));
  });

  it("lists and retrieves models", async () => {
    const ids: string[] = [];
    for await (const model of openai.models.list()) ids.push(model.id);
    assert.ok(ids.includes("mock-tools"));
    assert.equal((await openai.models.retrieve("mock-echo")).object, "model");
    await assert.rejects(openai.models.retrieve("gpt-x"), OpenAI.NotFoundError);
  });
});

describe("mock through the Vercel AI SDK", () => {
  const vendors = {
    "anthropic messages": createAnthropic({ apiKey: "x", baseURL: "http://mock/v1", fetch })("mock-tools"),
    "openai responses": createOpenAI({ apiKey: "x", baseURL: "http://mock/v1", fetch }).responses(
      "mock-tools",
    ),
    "openai chat": createOpenAI({ apiKey: "x", baseURL: "http://mock/v1", fetch }).chat("mock-tools"),
  };
  for (const [name, model] of Object.entries(vendors)) {
    it(`streams, runs tools and goes on in ${name}`, async () => {
      const result = streamText({
        model,
        prompt: "Rome",
        tools: {
          weather: tool({
            inputSchema: jsonSchema<{ city: string }>(SCHEMA),
            execute: async ({ city }) => `sunny in ${city}`,
          }),
        },
        stopWhen: stepCountIs(3),
      });
      assert.match(await result.text, /weather answered: .*sunny in Rome/);
      assert.equal((await result.steps).length, 2);
      assert.ok(((await result.totalUsage).inputTokens ?? 0) > 0);
    });

    it(`makes an object that follows a schema in ${name}`, async () => {
      const { output } = await generateText({
        model,
        prompt: "Rome",
        output: Output.object({ schema: jsonSchema<{ city: string; days: number }>(SCHEMA) }),
      });
      assert.deepEqual(output, { city: "Rome", days: 3 });
    });
  }
});

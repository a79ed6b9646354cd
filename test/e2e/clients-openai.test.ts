import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import OpenAI from "openai";
import { type Relay, startRelay } from "../support/relay.ts";
import { REMOTE, vendor } from "../support/vendor.ts";

const SCHEMA = {
  type: "object" as const,
  properties: { city: { type: "string" }, days: { type: "integer", minimum: 3 } },
  required: ["city", "days"],
};
const say = (content: string) => [{ role: "user" as const, content }];

describe("openai through TokenMan", () => {
  let relay: Relay;
  let openai: OpenAI;
  before(async () => {
    relay = await startRelay({ config: "[mock]\nretry_after_seconds = 0\n" });
    openai = new OpenAI({ apiKey: "sk-x", baseURL: `${relay.tokenman.proxy}/v1`, maxRetries: 0 });
  });
  after(() => relay[Symbol.asyncDispose]());

  for (const [where, prefix] of [
    ["the embedded mock", ""],
    ["a vendor", REMOTE],
  ] as const) {
    describe(`to ${where}`, () => {
      before(() => relay.upstream.script(vendor));

      it("chats", async () => {
        const reply = await openai.chat.completions.create({
          model: `${prefix}mock`,
          messages: say("hello there"),
        });
        assert.equal(reply.choices[0]?.message.content, "hello there");
        assert.ok(reply.usage!.total_tokens > 0);
      });

      it("streams a chat, with usage only where it was asked for", async () => {
        for (const include_usage of [true, false]) {
          const stream = openai.chat.completions.stream({
            model: `${prefix}mock-chunked-7`,
            messages: say("one two three four five"),
            stream_options: { include_usage },
          });
          const chunks = [];
          for await (const chunk of stream) chunks.push(chunk);
          assert.equal(
            (await stream.finalChatCompletion()).choices[0]?.message.content,
            "one two three four five",
          );
          assert.equal(chunks.filter((chunk) => chunk.choices[0]?.delta.content).length, 7);
          assert.equal(chunks.at(-1)?.usage?.completion_tokens, include_usage ? 6 : undefined);
        }
      });

      it("goes through the whole loop of a tool, in a chat and in responses", async () => {
        const tools = [{ type: "function" as const, function: { name: "weather", parameters: SCHEMA } }];
        const model = `${prefix}mock-tools`;
        const chat = openai.chat.completions.stream({ model, messages: say("Rome"), tools });
        const { choices } = await chat.finalChatCompletion();
        const call = choices[0]!.message.tool_calls![0]!;
        assert.ok(call.type === "function");
        assert.deepEqual(JSON.parse(call.function.arguments), { city: "Rome", days: 3 });
        const answered = await openai.chat.completions.create({
          model,
          tools,
          messages: [
            ...say("Rome"),
            choices[0]!.message,
            { role: "tool", tool_call_id: call.id, content: "sunny" },
          ],
        });
        assert.equal(answered.choices[0]?.message.content, "weather answered: sunny");

        const functions = [{ type: "function" as const, name: "weather", parameters: SCHEMA, strict: false }];
        const { output } = await openai.responses
          .stream({ model, input: "Rome", tools: functions })
          .finalResponse();
        const [use] = output;
        assert.ok(use?.type === "function_call");
        const done = await openai.responses.create({
          model,
          tools: functions,
          input: [
            { role: "user", content: "Rome" },
            { type: "function_call", call_id: use.call_id, name: use.name, arguments: use.arguments },
            { type: "function_call_output", call_id: use.call_id, output: "sunny" },
          ],
        });
        assert.equal(done.output_text, "weather answered: sunny");
      });

      it("responds, and streams a response", async () => {
        const input = "a rather long text, for a mock ".repeat(4);
        const whole = await openai.responses.create({ model: `${prefix}mock`, input });
        assert.equal(whole.output_text, input);
        const stream = openai.responses.stream({ model: `${prefix}mock-bytes-5`, input });
        const numbers: number[] = [];
        for await (const event of stream) numbers.push(event.sequence_number);
        assert.equal((await stream.finalResponse()).output_text, input);
        assert.deepEqual(numbers, [...numbers.keys()]);
      });

      it("embeds, as base64 and as numbers", async () => {
        const params = { model: `${prefix}mock`, input: ["a", "b"], dimensions: 64 };
        const packed = await openai.embeddings.create(params);
        const plain = await openai.embeddings.create({ ...params, encoding_format: "float" });
        assert.equal(packed.data.length, 2);
        for (const [index, { embedding }] of packed.data.entries()) {
          assert.equal(embedding.length, 64);
          assert.deepEqual(embedding, plain.data[index]?.embedding);
        }
      });

      it("throws where a reply breaks off or fails on its way, and never takes it for whole", async () => {
        const model = `${prefix}mock-fail-midstream`;
        const messages = say("x ".repeat(200));
        await assert.rejects(openai.chat.completions.create({ model, messages }));
        await assert.rejects(openai.responses.create({ model, input: "x ".repeat(200) }));
        const raw = async (): Promise<void> => {
          for await (const _ of await openai.chat.completions.create({ model, messages, stream: true }));
        };
        await assert.rejects(raw());
        const events = async (): Promise<void> => {
          for await (const _ of await openai.responses.create({
            model,
            input: "x ".repeat(200),
            stream: true,
          }));
        };
        await assert.rejects(events());
        const overloaded = openai.chat.completions.stream({ model: `${prefix}mock-overloaded`, messages });
        await assert.rejects(overloaded.finalChatCompletion(), /overloaded/);
      });
    });
  }

  it("lists models, with and without /v1 in its base URL", async () => {
    relay.upstream.script(vendor);
    // Both vendors have /v1/models: a key that looks like OpenAI's goes to the provider of that format.
    for (const base of ["/v1", "/p/side/v1"]) {
      const client = new OpenAI({ apiKey: "sk-x", baseURL: relay.tokenman.proxy + base, maxRetries: 0 });
      const ids: string[] = [];
      for await (const model of client.models.list()) ids.push(model.id);
      assert.ok(ids.includes("mock-tools"), base);
      await assert.rejects(client.models.retrieve("gpt-x"), OpenAI.NotFoundError);
    }
    const bare = new OpenAI({ apiKey: "sk-x", baseURL: relay.tokenman.proxy, maxRetries: 0 });
    const reply = await bare.chat.completions.create({ model: "mock", messages: say("bare") });
    assert.equal(reply.choices[0]?.message.content, "bare");
  });
});

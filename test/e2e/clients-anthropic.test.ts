import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { type Relay, startRelay } from "../support/relay.ts";
import { REMOTE, vendor } from "../support/vendor.ts";

const SCHEMA = {
  type: "object" as const,
  properties: { city: { type: "string" }, days: { type: "integer", minimum: 3 } },
  required: ["city", "days"],
};
const say = (content: string) => [{ role: "user" as const, content }];

describe("@anthropic-ai/sdk through TokenMan", () => {
  let relay: Relay;
  let anthropic: Anthropic;
  before(async () => {
    relay = await startRelay({ config: "[mock]\nretry_after_seconds = 0\n" });
    anthropic = new Anthropic({ apiKey: "sk-ant-api03-x", baseURL: relay.tokenman.proxy, maxRetries: 0 });
  });
  after(() => relay[Symbol.asyncDispose]());

  for (const [where, prefix] of [
    ["the embedded mock", ""],
    ["a vendor", REMOTE],
  ] as const) {
    describe(`to ${where}`, () => {
      before(() => relay.upstream.script(vendor));

      it("chats, and counts tokens", async () => {
        const params = { model: `${prefix}mock`, messages: say("hello there \u00e9"), system: "be good" };
        const message = await anthropic.messages.create({ ...params, max_tokens: 100 });
        assert.deepEqual(message.content, [{ type: "text", text: "hello there \u00e9" }]);
        assert.equal(message.stop_reason, "end_turn");
        const counted = await anthropic.messages.countTokens(params);
        assert.equal(counted.input_tokens, message.usage.input_tokens);
      });

      it("streams, by events and by its helper", async () => {
        const text = "na\u00efve \u{1f600} ".repeat(20);
        const params = { model: `${prefix}mock-bytes-3`, max_tokens: 1000, messages: say(text) };
        let streamed = "";
        for await (const event of await anthropic.messages.create({ ...params, stream: true })) {
          if (event.type === "content_block_delta" && event.delta.type === "text_delta")
            streamed += event.delta.text;
        }
        assert.equal(streamed, text);
        const final = await anthropic.messages.stream(params).finalMessage();
        assert.equal(final.content[0]?.type === "text" && final.content[0].text, text);
        assert.ok(final.usage.output_tokens > 1);
      });

      it("goes through the whole loop of a tool", async () => {
        const tools = [{ name: "weather", input_schema: SCHEMA }];
        for (const isStream of [false, true]) {
          const params = { model: `${prefix}mock-tools`, max_tokens: 100, tools, messages: say("Rome") };
          const message = isStream
            ? await anthropic.messages.stream(params).finalMessage()
            : await anthropic.messages.create(params);
          assert.equal(message.stop_reason, "tool_use");
          const [use] = message.content;
          assert.ok(use?.type === "tool_use");
          assert.deepEqual(use.input, { city: "Rome", days: 3 });
          const answered = await anthropic.messages.create({
            ...params,
            messages: [
              ...say("Rome"),
              { role: "assistant", content: message.content as Anthropic.ContentBlockParam[] },
              { role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: "sunny" }] },
            ],
          });
          assert.equal(
            answered.content[0]?.type === "text" && answered.content[0].text,
            "weather answered: sunny",
          );
        }
      });

      it("throws where a reply breaks off or fails on its way, and never takes it for whole", async () => {
        const params = { max_tokens: 1000, messages: say("x ".repeat(200)) };
        const model = `${prefix}mock-fail-midstream`;
        await assert.rejects(anthropic.messages.create({ ...params, model }));
        await assert.rejects(anthropic.messages.stream({ ...params, model }).finalMessage());
        const raw = async (): Promise<void> => {
          for await (const _ of await anthropic.messages.create({ ...params, model, stream: true }));
        };
        await assert.rejects(raw());
        const overloaded = anthropic.messages.stream({ ...params, model: `${prefix}mock-overloaded` });
        await assert.rejects(overloaded.finalMessage(), /overloaded/);
      });
    });
  }

  it("lists models, and names one that does not exist", async () => {
    relay.upstream.script(vendor);
    const ids: string[] = [];
    for await (const model of anthropic.models.list()) ids.push(model.id);
    assert.ok(ids.includes("mock-tools"));
    await assert.rejects(anthropic.models.retrieve("claude-x"), Anthropic.NotFoundError);
  });
});

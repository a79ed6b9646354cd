import assert from "node:assert/strict";
import { describe, it } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { textScript } from "@tokenman/plugin-sdk/testkit";
import OpenAI from "openai";
import { provider, type Routed, startRouted } from "../support/routed.ts";

const limits = { timeout: 30_000 };

/** Aliases of both vendors' formats, to a server that knows itself as "test-model". */
const aliased = () =>
  startRouted(1, ([url]) =>
    [
      provider("anthropic", { api_base: url, auth: "client" }),
      provider("openai", { api_base: url, auth: "client" }),
      '[routing.model_map]\nsmall = "openai/test-model"\n"claude-*" = "anthropic/test-model"\n',
    ].join(""),
  );
const openaiAt = ({ tokenman }: Routed) =>
  new OpenAI({ apiKey: "sk-x", baseURL: `${tokenman.proxy}/v1`, maxRetries: 0 });
const anthropicAt = ({ tokenman }: Routed) =>
  new Anthropic({ apiKey: "sk-ant-api03-x", baseURL: tokenman.proxy, maxRetries: 0 });
const sentModel = (it: Routed) => (it.upstreams[0]!.last().json() as { readonly model: string }).model;
const messages = [{ role: "user" as const, content: "hi" }];

describe("clients that ask for an alias", () => {
  it("openai: get its name back, in answers and in each chunk of a stream", limits, async () => {
    await using it = await aliased();
    const openai = openaiAt(it);
    const whole = await openai.chat.completions.create({ model: "small", messages });
    assert.deepEqual([whole.model, whole.choices[0]?.message.content], ["small", "Hello there."]);
    assert.equal(sentModel(it), "test-model");
    const models = new Set<string>();
    let text = "";
    const stream = await openai.chat.completions.create({ model: "small", messages, stream: true });
    for await (const chunk of stream) {
      models.add(chunk.model);
      text += chunk.choices[0]?.delta.content ?? "";
    }
    assert.deepEqual([[...models], text], [["small"], "Hello there."]);
  });

  it("openai: get it back in responses, and in every event that holds one", limits, async () => {
    await using it = await aliased();
    const openai = openaiAt(it);
    const whole = await openai.responses.create({ model: "small", input: "hi" });
    assert.deepEqual([whole.model, whole.output_text], ["small", "Hello there."]);
    const models: string[] = [];
    const stream = openai.responses.stream({ model: "small", input: "hi" });
    for await (const event of stream) if ("response" in event) models.push(event.response.model);
    assert.deepEqual(models, ["small", "small"]);
    assert.equal((await stream.finalResponse()).output_text, "Hello there.");
    assert.equal(sentModel(it), "test-model");
  });

  it("@anthropic-ai/sdk: get it back in messages and their streams", limits, async () => {
    await using it = await aliased();
    const anthropic = anthropicAt(it);
    const params = { model: "claude-opus", max_tokens: 9, messages };
    const whole = await anthropic.messages.create(params);
    assert.equal(whole.model, "claude-opus");
    const stream = anthropic.messages.stream(params);
    const final = await stream.finalMessage();
    assert.equal(final.model, "claude-opus");
    assert.equal(await stream.finalText(), "Hello there.");
    assert.equal(sentModel(it), "test-model");
    assert.equal(it.upstreams[0]!.last().header("accept-encoding"), "identity");
  });

  it("find it in their lists of models", limits, async () => {
    await using it = await aliased();
    it.upstreams[0]!.script(async (call) => {
      if (!call.request.target.startsWith("/v1/models")) return textScript()(call);
      const id = call.request.header("anthropic-version") === undefined ? "test-model" : "claude-real";
      const model = {
        id,
        type: "model",
        object: "model",
        created: 1,
        display_name: id,
        created_at: "2026-01-01T00:00:00Z",
      };
      const body = JSON.stringify({ object: "list", data: [model], has_more: false });
      await call.reply({ status: 200, headers: ["Content-Type", "application/json"], body });
    });
    const listed: string[] = [];
    for await (const model of openaiAt(it).models.list()) listed.push(model.id);
    assert.deepEqual(listed.slice(0, 2), ["test-model", "small"]);
    assert.equal((await openaiAt(it).models.retrieve("small")).id, "small");
    // A page at a time, as its SDK follows them.
    const paged: string[] = [];
    for await (const model of anthropicAt(it).models.list({ limit: 2 })) paged.push(model.id);
    assert.equal(paged[0], "claude-real");
    assert.ok(paged.length > 3 && new Set(paged).size === paged.length);
    assert.equal((await anthropicAt(it).models.retrieve("claude-real")).type, "model");
  });
});

import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import {
  APICallError,
  embedMany,
  generateText,
  jsonSchema,
  type LanguageModel,
  Output,
  stepCountIs,
  streamText,
  tool,
} from "ai";
import { type Relay, startRelay } from "../support/relay.ts";
import { gate } from "../support/upstream.ts";
import { REMOTE, vendor } from "../support/vendor.ts";

// The SDK warns that it does not know the mock's models.
(globalThis as { AI_SDK_LOG_WARNINGS?: boolean }).AI_SDK_LOG_WARNINGS = false;

const SCHEMA = {
  type: "object" as const,
  properties: { city: { type: "string" }, days: { type: "integer", minimum: 3 } },
  required: ["city", "days"],
};

/** How the SDK speaks to each vendor, as its users write it: Anthropic's base URL is used without /v1 too. */
const WAYS: Readonly<Record<string, (base: string, model: string) => Exclude<LanguageModel, string>>> = {
  "anthropic messages": (base, model) => createAnthropic({ apiKey: "x", baseURL: base })(model),
  "anthropic messages under /v1": (base, model) =>
    createAnthropic({ apiKey: "x", baseURL: `${base}/v1` })(model),
  "openai responses": (base, model) => createOpenAI({ apiKey: "x", baseURL: `${base}/v1` }).responses(model),
  "openai responses without /v1": (base, model) =>
    createOpenAI({ apiKey: "x", baseURL: base }).responses(model),
  "openai chat": (base, model) => createOpenAI({ apiKey: "x", baseURL: `${base}/v1` }).chat(model),
  "openai chat in a project": (base, model) =>
    createOpenAI({ apiKey: "x", baseURL: `${base}/p/side/v1` }).chat(model),
};

describe("the Vercel AI SDK through TokenMan", () => {
  let relay: Relay;
  before(async () => {
    relay = await startRelay({ config: "[mock]\nretry_after_seconds = 0\n" });
    relay.upstream.script(vendor);
  });
  after(() => relay[Symbol.asyncDispose]());

  for (const [way, make] of Object.entries(WAYS)) {
    for (const prefix of ["", REMOTE]) {
      const to = prefix === "" ? "the embedded mock" : "a vendor";
      it(`streams, runs tools, makes objects and fails as it should: ${way}, to ${to}`, async () => {
        const model = (name: string) => make(relay.tokenman.proxy, prefix + name);
        const run = streamText({
          model: model("mock-tools-bytes-11"),
          prompt: "Rome",
          tools: {
            weather: tool({
              inputSchema: jsonSchema<{ city: string }>(SCHEMA),
              execute: async ({ city }) => `sunny in ${city}`,
            }),
          },
          stopWhen: stepCountIs(3),
        });
        assert.match(await run.text, /weather answered: .*sunny in Rome/);
        assert.equal((await run.steps).length, 2);
        assert.ok(((await run.totalUsage).inputTokens ?? 0) > 0);

        const { text } = await generateText({ model: model("mock"), prompt: "caf\u00e9 \u{1f600}" });
        assert.equal(text, "caf\u00e9 \u{1f600}");
        const { output } = await generateText({
          model: model("mock-tools"),
          prompt: "Rome",
          output: Output.object({ schema: jsonSchema<{ city: string; days: number }>(SCHEMA) }),
        });
        assert.deepEqual(output, { city: "Rome", days: 3 });

        for (const status of [400, 401, 404, 429, 529]) {
          const failed = generateText({ model: model(`mock-fail-${status}`), prompt: "x", maxRetries: 0 });
          await assert.rejects(
            failed,
            (error) => APICallError.isInstance(error) && error.statusCode === status,
          );
        }
        const broken = streamText({
          model: model("mock-fail-midstream"),
          prompt: "x ".repeat(200),
          maxRetries: 0,
          onError() {},
        });
        // Its text comes to an error, not to a shorter end.
        await assert.rejects(async () => broken.text);
      });
    }
  }

  it("embeds", async () => {
    for (const prefix of ["", REMOTE]) {
      const openai = createOpenAI({ apiKey: "x", baseURL: `${relay.tokenman.proxy}/v1` });
      const { embeddings } = await embedMany({
        model: openai.embedding(`${prefix}mock`),
        values: ["a", "b"],
      });
      assert.deepEqual(
        embeddings.map((embedding) => embedding.length),
        [1536, 1536],
      );
    }
  });

  it("is heard at once where it aborts", async () => {
    const called = gate<Promise<void>>();
    relay.upstream.next(async (call) => {
      await call.received;
      called.open(call.closed);
      await call.closed;
    });
    const abort = new AbortController();
    const run = generateText({
      model: WAYS["openai chat"]!(relay.tokenman.proxy, "gpt-x"),
      prompt: "x",
      abortSignal: abort.signal,
    });
    const failed = assert.rejects(run);
    // A gate that opens with a promise opens when that is settled: when the upstream's connection is closed.
    const closed = called.opened;
    await relay.upstream.request(relay.upstream.requests.length + 1);
    abort.abort();
    await Promise.all([failed, closed]);
  });
});

import { definePlugin, z } from "@tokenman/plugin-sdk";
import { chat, embeddings, models, responses } from "./dialects.ts";
import { format } from "./format.ts";
import { includeUsage } from "./include-usage.ts";

const configSchema = z
  .strictObject({
    include_usage: z
      .boolean()
      .default(true)
      .describe("Ask for the usage of streams whose client did not, and hide it from the client."),
  })
  .describe("OpenAI's wire formats.");

/** The OpenAI family of wire formats: Chat Completions, Responses, embeddings and the model list. */
export default definePlugin({
  name: "openai",
  version: "0.1.0",
  apiVersion: 1,
  description: "Speaks OpenAI's Chat Completions, Responses and Embeddings: request, usage, errors, segments",
  section: "openai",
  configSchema,
  // Next to the provider: what the client did not order is gone from a stream before any other plugin sees it.
  stage: "route",
  setup(ctx) {
    ctx.contribute("format", format);
    for (const dialect of [chat, responses, embeddings, models]) ctx.contribute("dialect", dialect);
    ctx.pipeline((config, hooks) => {
      if (config.include_usage) includeUsage(hooks);
    });
  },
});

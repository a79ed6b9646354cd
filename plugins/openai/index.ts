import { definePlugin, z } from "@tokenman/plugin-sdk";
import { chat, embeddings, models, responses } from "./dialects.ts";
import { format } from "./format.ts";
import { includeUsage } from "./include-usage.ts";

const configSchema = z
  .strictObject({
    include_usage: z
      .union([z.boolean(), z.array(z.string())])
      .default(true)
      .describe(
        "Ask for the usage of streams whose client did not, and hide it from the client. A list: only these providers.",
      ),
  })
  .describe("OpenAI's wire formats.");

/** The OpenAI family of wire formats: Chat Completions, Responses, embeddings and the model list. */
export default definePlugin({
  name: "openai",
  version: "0.1.0",
  apiVersion: 1,
  contributes: { formats: [format.name] },
  description: "Speaks OpenAI's Chat Completions, Responses and Embeddings: request, usage, errors, segments",
  section: "openai",
  configSchema,
  // Next to the provider: what the client did not order is gone from a stream before any other plugin sees it.
  stage: "route",
  async setup(ctx) {
    const refused = await ctx.keep("who refuses include_usage", () => new Set<string>());
    ctx.contribute("format", format);
    for (const dialect of [chat, responses, embeddings, models]) ctx.contribute("dialect", dialect);
    ctx.pipeline((config, hooks) => {
      const asked = config.include_usage;
      if (asked === false) return;
      includeUsage(hooks, { providers: asked === true || new Set(asked), refused, log: ctx.log });
    });
  },
});

import { definePlugin } from "@tokenman/plugin-sdk";
import { chat, embeddings, models, responses } from "./dialects.ts";
import { format } from "./format.ts";

/** The OpenAI family of wire formats: Chat Completions, Responses, embeddings and the model list. */
export default definePlugin({
  name: "openai",
  version: "0.1.0",
  apiVersion: 1,
  description: "Speaks OpenAI's Chat Completions, Responses and Embeddings: request, usage, errors, segments",
  setup(ctx) {
    ctx.contribute("format", format);
    for (const dialect of [chat, responses, embeddings, models]) ctx.contribute("dialect", dialect);
  },
});

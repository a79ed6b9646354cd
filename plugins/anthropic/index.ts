import { definePlugin } from "@tokenman/plugin-sdk";
import { countTokens, messages, models } from "./dialects.ts";
import { format } from "./format.ts";

/** The Anthropic family of wire formats: Messages, token counting and the model list. */
export default definePlugin({
  name: "anthropic",
  version: "0.1.0",
  apiVersion: 1,
  contributes: { formats: [format.name] },
  description: "Speaks Anthropic's Messages API: request, usage, errors, segments",
  setup(ctx) {
    ctx.contribute("format", format);
    ctx.contribute("dialect", messages);
    ctx.contribute("dialect", countTokens);
    ctx.contribute("dialect", models);
  },
});

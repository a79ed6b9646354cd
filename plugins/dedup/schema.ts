import { z } from "@tokenman/plugin-sdk";

/** `[compression.dedup]`. */
export const dedupSchema = z
  .strictObject({
    enabled: z
      .boolean()
      .default(true)
      .describe("Hint the provider's prompt cache where the client does not."),
    ttl_seconds: z
      .number()
      .min(0)
      .default(300)
      .describe("Seconds for which a system prompt and tools count as repeated, in whichever session."),
    one_hour: z
      .boolean()
      .default(true)
      .describe(
        "Whether the one-hour cache may be asked for where a session's pauses make it the cheaper one.",
      ),
    stable_tools: z
      .boolean()
      .default(true)
      .describe(
        "Whether a session's tools are sent in the order in which they first came, where its client changes it from turn to turn.",
      ),
    min_tokens: z
      .record(z.string().min(1), z.int().min(0))
      .default({})
      .describe(
        "The shortest prompt that a model caches, by the beginning of its name; over the built-in table.",
      ),
    prompt_cache_key_providers: z
      .array(z.string().min(1))
      .default([])
      .describe("Further providers, by name, that take OpenAI's prompt_cache_key."),
  })
  .describe("Marks repeated prompts and tool definitions for the provider's own prompt cache.");

export type DedupConfig = (typeof dedupSchema)["_output"];

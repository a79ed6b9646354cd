import { z } from "@tokenman/plugin-sdk";

const MAX_DELAY_MS = 3_600_000;

function delay(description: string) {
  return z.int().min(0).max(MAX_DELAY_MS).default(0).describe(description);
}

/** `[mock]`. What a model's name says goes first. */
export const mockSchema = z.strictObject({
  mode: z
    .enum(["echo", "fixed", "tools"])
    .default("echo")
    .describe("What it says: the last user's text, fixed_text, or a call of the first offered tool."),
  fixed_text: z
    .string()
    .default("This is a fixed answer of TokenMan's embedded provider.")
    .describe("For the mode fixed."),
  head_delay_ms: delay("Milliseconds until the reply's head."),
  event_delay_ms: delay("Milliseconds between the events of a stream."),
  chunks: z
    .int()
    .min(0)
    .max(100_000)
    .default(0)
    .describe("How many pieces a streamed text is cut into; 0: by its length."),
  retry_after_seconds: z.int().min(0).max(86_400).default(1).describe("Retry-After of its 429, 503 and 529."),
  bytes_per_token: z
    .number()
    .min(0.5)
    .max(100)
    .default(4)
    .describe("How many bytes of a prompt are one token: its tokens are a rule."),
  embedding_dimensions: z.int().min(1).max(8_192).default(1_536).describe("Where a request does not say."),
  prompt_cache: z
    .strictObject({
      enabled: z
        .boolean()
        .default(true)
        .describe("Whether a provider's prompt cache is simulated in the usage."),
      min_tokens: z.int().min(0).default(1_024).describe("Prompts below this are not cached."),
      min_tokens_by_model: z
        .record(z.string().min(1), z.int().min(0))
        .default({})
        .describe("… for a model by its exact name."),
      openai_ttl_seconds: z
        .int()
        .min(1)
        .default(300)
        .describe("How long an OpenAI prefix lives after its last use."),
      openai_reports_writes: z
        .boolean()
        .default(false)
        .describe("Whether OpenAI usage has cache_write_tokens, as with models that bill writes."),
    })
    .prefault({}),
});

export type MockConfig = z.output<typeof mockSchema>;

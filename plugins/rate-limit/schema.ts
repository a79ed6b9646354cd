import { z } from "@tokenman/plugin-sdk";

const limit = z.union([
  z.number().gt(0),
  z.strictObject({
    rate: z.number().gt(0).optional().describe("Requests a second."),
    burst: z.int().min(1).optional().describe("Requests that may go at once."),
    requests_per_minute: z.number().gt(0).optional().describe("In the place of rate: requests a minute."),
    tokens_per_minute: z
      .int()
      .min(1)
      .optional()
      .describe("Tokens a minute, input and output together, without what the provider had cached."),
  }),
]);

export type LimitConfig = z.output<typeof limit>;

/** `[security.rate_limit]`. */
export const rateLimitSchema = z
  .strictObject({
    enabled: z.boolean().default(false).describe("Keep requests under each provider's limits."),
    default_rate: z.number().gt(0).default(10).describe("Requests a second to each provider."),
    default_burst: z.int().min(1).default(20).describe("Requests that may go at once."),
    default_tokens_per_minute: z
      .int()
      .min(0)
      .default(0)
      .describe("Tokens a minute to each provider. 0 is no limit."),
    provider_limits: z
      .record(z.string(), limit)
      .default({})
      .describe("By provider: a rate, or { rate, burst, requests_per_minute, tokens_per_minute }."),
    models: z
      .record(z.string().min(1), limit)
      .default({})
      .describe("The same by model, beside the providers' limits; * stands for any text."),
    project_limit: limit
      .optional()
      .describe("The same for each project, over all providers. Not set: no limit."),
    mode: z
      .enum(["refuse", "wait"])
      .default("refuse")
      .describe(
        "What becomes of a request for which there is no room: refused with 429, or it waits for its turn.",
      ),
    max_wait: z
      .number()
      .min(0)
      .max(600)
      .default(10)
      .describe("Seconds that a request may wait; one that would wait longer is refused at once."),
    adaptive: z
      .boolean()
      .default(false)
      .describe("Also heed what the provider says is left, and how long it asks to be left alone."),
  })
  .describe("Keeps requests under each provider's limits.");

export type RateLimitConfig = z.output<typeof rateLimitSchema>;

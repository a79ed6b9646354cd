import { z } from "@tokenman/plugin-sdk";

/** Of `[resilience]`, what is about trying again. */
export const retrySchema = z
  .strictObject({
    retry_max_attempts: z
      .int()
      .min(0)
      .max(50)
      .default(3)
      .describe("Further attempts after one that failed, with other providers or the same one. 0: none."),
    retry_base_delay_ms: z
      .int()
      .min(0)
      .max(3_600_000)
      .default(500)
      .describe(
        "Milliseconds that the wait before the same provider is asked again stays below, at first; it doubles.",
      ),
    retry_max_delay_ms: z
      .int()
      .min(0)
      .max(3_600_000)
      .default(30_000)
      .describe("Milliseconds at most before any of them, whatever Retry-After says."),
    retry_statuses: z
      .array(z.int().min(400).max(599))
      .default([408, 429, 500, 502, 503, 504, 529])
      .describe("Statuses after which there is another attempt, unless the provider says it cannot help."),
    retry_total_ms: z
      .int()
      .min(0)
      .max(86_400_000)
      .default(120_000)
      .describe("No attempt begins later than this many milliseconds after the first; 0: no limit."),
    retry_budget: z
      .number()
      .min(0)
      .max(10)
      .default(0.2)
      .describe(
        "How many requests may be sent to the same provider again, for each one sent to it; beside 10 a second.",
      ),
  })
  .describe("What happens when a provider fails.");

export type RetryConfig = (typeof retrySchema)["_output"];

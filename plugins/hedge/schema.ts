import { z } from "@tokenman/plugin-sdk";

/** `[resilience.hedge]`. */
export const hedgeSchema = z
  .strictObject({
    enabled: z
      .boolean()
      .default(false)
      .describe("Ask a second provider beside one that takes longer than it nearly always does."),
    initial_delay_ms: z
      .int()
      .min(0)
      .max(3_600_000)
      .default(10_000)
      .describe("Milliseconds after which, while too little is known of a provider and model."),
    min_delay_ms: z
      .int()
      .min(0)
      .max(3_600_000)
      .default(1_000)
      .describe("Milliseconds before which it is never done, however fast they are."),
    max_share: z
      .number()
      .min(0)
      .max(1)
      .default(0.05)
      .describe("The share of requests that may be asked twice."),
  })
  .describe("A second provider is asked beside one that takes long; the first to stream wins. Both cost.");

export type HedgeConfig = (typeof hedgeSchema)["_output"];

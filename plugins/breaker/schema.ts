import { z } from "@tokenman/plugin-sdk";

/** Of `[resilience]`, what is about leaving a provider alone that keeps failing. */
export const breakerSchema = z
  .strictObject({
    circuit_breaker_enabled: z.boolean().default(true).describe("Stop asking a provider that keeps failing."),
    cb_failure_threshold: z
      .int()
      .min(1)
      .default(5)
      .describe("Failures in a row that open a provider's circuit."),
    cb_reset_timeout_seconds: z
      .number()
      .min(0)
      .default(60)
      .describe("Seconds before an open circuit lets a probe through."),
    cb_half_open_max_calls: z
      .int()
      .min(1)
      .default(1)
      .describe("Successful probes, one at a time, that close it."),
    cb_error_rate: z
      .number()
      .min(0)
      .max(1)
      .default(0.5)
      .describe(
        "The share of failures within cb_window_seconds that opens it too. 0: only failures in a row.",
      ),
    cb_min_calls: z
      .int()
      .min(1)
      .default(20)
      .describe("Attempts within cb_window_seconds below which that share says nothing."),
    cb_window_seconds: z.number().gt(0).default(30).describe("Seconds over which the share is taken."),
    cb_count_rate_limits: z
      .boolean()
      .default(false)
      .describe("Whether a 429 is a failure. A provider that limits is not broken."),
  })
  .describe("What happens when a provider fails.");

export type BreakerConfig = (typeof breakerSchema)["_output"];

import { z } from "@tokenman/plugin-sdk";

/** `[compression.heartbeat]`. */
export const heartbeatSchema = z
  .strictObject({
    enabled: z.boolean().default(false).describe("Let near-identical polling requests share one answer."),
    dedup_window_seconds: z
      .number()
      .min(0)
      .max(86_400)
      .default(30)
      .describe("Seconds within which they share it."),
    heartbeat_model: z
      .string()
      .default("")
      .describe("The model for those that go out. Empty: routing.heartbeat_model, else the one asked for."),
    patterns: z
      .array(z.string().min(1).max(1_000))
      .default([])
      .describe(
        "What the last message of a polling request says, * standing for any text: those that fit one share an answer.",
      ),
    automatic: z
      .boolean()
      .default(true)
      .describe(
        "Also take short requests without tools for polling whose last message tells the present time or a one-time id, and that differ in nothing else.",
      ),
  })
  .describe("Lets near-identical polling requests share one answer.");

export type HeartbeatConfig = z.output<typeof heartbeatSchema>;

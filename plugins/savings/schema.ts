import { z } from "@tokenman/plugin-sdk";

/** `[compression]`: what all compressors have in common. Their own settings are in the sections below it. */
export const savingsSchema = z
  .strictObject({
    holdout: z
      .number()
      .min(0)
      .max(0.5)
      .default(0.05)
      .describe(
        "The share of sessions whose text no compressor changes, to measure the others against. 0: none.",
      ),
  })
  .describe("What all compressors have in common: which sessions they leave alone, and what they saved.");

export type SavingsConfig = z.output<typeof savingsSchema>;

import { z } from "@tokenman/plugin-sdk";

/** `[compression.history]`. */
export const historySchema = z
  .strictObject({
    enabled: z.boolean().default(false).describe("Leave the oldest turns of long conversations out."),
    window_size: z
      .int()
      .min(1)
      .default(10)
      .describe(
        "Turns that are kept by a cut, beside the opening. There is none before there are twice as many.",
      ),
  })
  .describe("Sends only the newest turns of a conversation.");

export type HistoryConfig = z.output<typeof historySchema>;

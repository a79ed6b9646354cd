import { z } from "@tokenman/plugin-sdk";

/** `[tokenizer]`. */
export const tokenizerSchema = z
  .strictObject({
    workers: z
      .int()
      .min(1)
      .max(8)
      .default(1)
      .describe("Threads that count, at most. Each is started when it is needed, and takes about 100 MB."),
    idle_seconds: z
      .number()
      .min(1)
      .max(86_400)
      .default(300)
      .describe("Seconds without work after which a thread ends."),
    memory_entries: z
      .int()
      .min(100)
      .max(10_000_000)
      .default(20_000)
      .describe("Pieces of text whose counts are remembered, about 150 bytes each."),
    track_usage: z
      .boolean()
      .default(false)
      .describe("Read every reply's usage to learn from it, even where nothing else asks for it."),
  })
  .describe("Counts tokens locally, for reservations and savings.");

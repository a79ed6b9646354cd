import { z } from "@tokenman/plugin-sdk";

/** `[compression.summarization]`. */
export const summarizeSchema = z
  .strictObject({
    enabled: z
      .boolean()
      .default(false)
      .describe("Send a summary in the place of the older part of long conversations."),
    max_messages: z
      .int()
      .min(2)
      .default(50)
      .describe("Conversations with more messages than this are summarised, down to half as many."),
    summary_model: z
      .string()
      .default("")
      .describe(
        "The model that summarises, which must be one for requests of the conversation's format. Empty: the conversation's own.",
      ),
    summary_max_tokens: z.int().min(1).default(1024).describe("Tokens of the longest summary."),
    keep_summaries: z
      .boolean()
      .default(false)
      .describe(
        "Whether summaries that are in use are written to the data folder, so that they outlive a restart. They tell what was said.",
      ),
  })
  .describe("Replaces the older part of a long conversation by a summary.");

export type SummarizeConfig = z.output<typeof summarizeSchema>;

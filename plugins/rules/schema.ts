import { z } from "@tokenman/plugin-sdk";

function flag(fallback: boolean, description: string) {
  return z.boolean().default(fallback).describe(description);
}

/** `[compression.rules]`. */
export const rulesSchema = z
  .strictObject({
    enabled: z.boolean().default(true).describe("Rewrite texts by the rules that are on."),
    minify_json: flag(true, "Take the white space out of texts that are nothing but JSON."),
    collapse_whitespace: flag(false, "Collapse runs of blanks and of empty lines."),
    minify_xml: flag(false, "Take the white space between tags out of texts that are nothing but XML."),
    dedup_instructions: flag(false, "Refer to paragraphs of the system prompt that a message repeats."),
    strip_markdown: flag(false, "Drop Markdown's headings, rules and emphasis."),
    tool_output: flag(
      false,
      "Shorten what programs printed: colours, progress bars, repeated lines, results and data that were there before; and JSON and XML of other tools, if those rules are on.",
    ),
  })
  .describe("Rewrites text into shorter text. Only what loses nothing is on by default.");

export type RulesConfig = (typeof rulesSchema)["_output"];

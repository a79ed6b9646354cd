import { z } from "@tokenman/plugin-sdk";
import { flag, plan, plannedSections } from "../../../cli/planned.ts";
import type { SectionSpec } from "../../../kernel/config/index.ts";

/**
 * The features' sections as the design has them, apart from what their plugins add: what the tests of the config try its
 * rules on. All are marked as planned; those that still are come from their list, and move here when their plugin lands.
 */
export const designSections: readonly SectionSpec[] = [
  plan("cache", "cache", {
    about: "Answers identical requests from a store.",
    enabledByDefault: true,
    schema: z.strictObject({
      ttl_seconds: seconds()
        .optional()
        .describe("Seconds an answer is kept. Not set: metrics.cache_ttl_seconds."),
      memory_bytes: count().optional().describe("Bytes of answers kept in memory."),
      max_entry_bytes: count().optional().describe("Bytes of the largest answer that is kept."),
      ignore_fields: z
        .array(z.string().min(1))
        .default([])
        .describe("Top-level fields of the request that make no difference to the answer."),
    }),
  }),
  plan("metrics", "metrics", {
    about: "What is counted, and for how long it is kept.",
    perProject: false,
    schema: z.strictObject({
      retention_days: z
        .int()
        .min(0)
        .default(30)
        .describe("Days that requests stay in the database. 0 keeps them all."),
      cache_ttl_seconds: seconds().default(300).describe("Seconds the response cache keeps an answer."),
    }),
  }),
  plan("compression.dedup", "dedup", {
    about: "Marks repeated prompts and tool definitions for the provider's own prompt cache.",
    enabledByDefault: true,
    schema: z.strictObject({
      ttl_seconds: seconds().default(300).describe("Seconds for which a prompt counts as repeated."),
    }),
  }),
  plan("compression.rules", "rules", {
    about: "Rewrites text into shorter text. Only what loses nothing is on by default.",
    enabledByDefault: true,
    schema: z.strictObject({
      minify_json: flag(true, "Minify text that is nothing but JSON."),
      collapse_whitespace: flag(false, "Collapse runs of blanks and empty lines."),
      minify_xml: flag(false, "Minify text that is nothing but XML."),
      dedup_instructions: flag(false, "Drop instructions that were given before."),
      strip_markdown: flag(false, "Drop Markdown's decoration."),
      tool_output: flag(false, "Apply the rules to tool results too."),
    }),
  }),
  plan("compression.heartbeat", "heartbeat", {
    about: "Lets near-identical polling requests share one answer.",
    enabledByDefault: false,
    schema: z.strictObject({
      dedup_window_seconds: seconds().default(30).describe("Seconds within which they share it."),
      heartbeat_model: z
        .string()
        .default("")
        .describe("The model for those that go out. Empty: the one asked for."),
    }),
  }),
  plan("compression.history", "history", {
    about: "Sends only the newest turns of a conversation.",
    enabledByDefault: false,
    schema: z.strictObject({
      window_size: z.int().min(1).default(10).describe("How many turns."),
    }),
  }),
  plan("compression.summarization", "summarize", {
    about: "Replaces the older part of a long conversation by a summary.",
    enabledByDefault: false,
    schema: z.strictObject({
      max_messages: z
        .int()
        .min(2)
        .default(50)
        .describe("Conversations with more messages than this are summarised."),
      summary_model: z
        .string()
        .default("")
        .describe("The model that summarises. Empty: the conversation's own."),
      summary_max_tokens: z.int().min(1).default(1024).describe("Tokens of the longest summary."),
    }),
  }),
  plan("security.budget", "budget", {
    about: "Refuses requests once the money is spent.",
    enabledByDefault: false,
    guard: true,
    schema: z.strictObject({
      hourly_limit: usd("USD an hour. 0 is no limit."),
      daily_limit: usd("USD a day. 0 is no limit."),
      monthly_limit: usd("USD a month. 0 is no limit."),
      alert_thresholds: z
        .array(z.number().min(0).max(100))
        .default([50, 75, 90])
        .describe("Percentages of a limit at which an alert is raised."),
    }),
  }),
  plan("security.rate_limit", "rate-limit", {
    about: "Keeps requests under each provider's limits.",
    enabledByDefault: false,
    guard: true,
    schema: z.strictObject({
      default_rate: z.number().gt(0).default(10).describe("Requests a second to each provider."),
      default_burst: z.int().min(1).default(20).describe("Requests that may go at once."),
      provider_limits: z
        .record(
          z.string(),
          z.union([
            z.number().gt(0),
            z.strictObject({ rate: z.number().gt(0).optional(), burst: z.int().min(1).optional() }),
          ]),
        )
        .default({})
        .describe("By provider: a rate, or { rate, burst }."),
    }),
  }),
  plan("resilience", "retry", {
    about: "What happens when a provider fails.",
    schema: z.strictObject({
      retry_max_attempts: z.int().min(0).default(3).describe("Further attempts after one that failed."),
      retry_base_delay_ms: count().default(500).describe("Milliseconds before the first of them."),
      retry_max_delay_ms: count().default(30_000).describe("Milliseconds at most before any of them."),
    }),
  }),
  plan("resilience", "breaker", {
    about: "What happens when a provider fails.",
    schema: z.strictObject({
      circuit_breaker_enabled: flag(true, "Stop asking a provider that keeps failing."),
      cb_failure_threshold: z.int().min(1).default(5).describe("Failures in a row that open the breaker."),
      cb_reset_timeout_seconds: seconds()
        .default(60)
        .describe("Seconds before an open breaker lets a probe through."),
      cb_half_open_max_calls: z
        .int()
        .min(1)
        .default(1)
        .describe("Successful probes, one at a time, that close it."),
    }),
  }),
  ...plannedSections,
];

function seconds() {
  return z.number().min(0);
}

function count() {
  return z.int().min(0);
}

function usd(description: string) {
  return z.number().min(0).default(0).describe(description);
}

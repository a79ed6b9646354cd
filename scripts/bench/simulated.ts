/** A provider's bill for calls that reach it as they are, by the embedded provider's simulation of prompt caches alone. */
import { planAnthropic } from "../../plugins/mock/anthropic-cache.ts";
import { readAnthropic } from "../../plugins/mock/anthropic-prompt.ts";
import { Bodies } from "../../plugins/mock/bodies.ts";
import type { Json } from "../../plugins/mock/json.ts";
import { planOpenAi } from "../../plugins/mock/openai-cache.ts";
import { readOpenAi } from "../../plugins/mock/openai-prompt.ts";
import { PromptCache } from "../../plugins/mock/prompt-cache.ts";
import { CACHE_TTL_MS, type RecordedCall, type ReplayDialect } from "./recorded-calls.ts";

/** What one call was billed, in tokens; the kinds are disjoint. */
export interface CallUsage {
  readonly index: number;
  readonly input: number;
  readonly read: number;
  readonly write5m: number;
  readonly write1h: number;
  readonly output: number;
}

export interface ProviderRules {
  readonly bytesPerToken: number;
  readonly minTokens: number;
}

/** The smallest prompt that is cached: Anthropic's page on prompt caching for this model, OpenAI's for all. */
export const MIN_TOKENS: Readonly<Record<ReplayDialect, number>> = {
  "anthropic-messages": 4_096,
  "openai-chat": 1_024,
  "openai-responses": 1_024,
};

/** Bills the calls one after another, at the times at which they were sent. */
export function simulate(
  calls: Iterable<RecordedCall>,
  dialect: ReplayDialect,
  { bytesPerToken, minTokens }: ProviderRules,
): CallUsage[] {
  let now = 0;
  const cache = new PromptCache(() => now);
  const bodies = new Bodies();
  const usages: CallUsage[] = [];
  for (const { turn, body, sentAt } of calls) {
    now = sentAt;
    const json = bodies.read(body) as Json;
    const plan =
      dialect === "anthropic-messages"
        ? planAnthropic(readAnthropic(json, bytesPerToken), cache, "", minTokens)
        : planOpenAi(readOpenAi(json, bytesPerToken), cache, "", { minTokens, ttlMs: CACHE_TTL_MS });
    plan.commit();
    usages.push({
      index: turn.index,
      input: plan.inputTokens,
      read: plan.readTokens,
      write5m: plan.write5mTokens,
      write1h: plan.write1hTokens,
      output: turn.usage.output,
    });
  }
  return usages;
}

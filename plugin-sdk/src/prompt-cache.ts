import { type Exchange, type Slot, slot } from "./exchange.ts";

/**
 * What a provider's prompt cache had of a turn: most of what the turn before had sent ("hit"); nothing, as there was no turn
 * before, or it was not cached ("first"); or little, and why: something in front changed, too much time had passed, or the
 * provider did not keep it.
 */
export type PromptCacheResult = (typeof PROMPT_CACHE_RESULTS)[number];
/** All of them. Only ever append: ledgers store the position. */
export const PROMPT_CACHE_RESULTS = [
  "hit",
  "first",
  "model",
  "tools",
  "system",
  "history",
  "expired",
  "provider",
] as const;

const Result: Slot<PromptCacheResult> = slot<PromptCacheResult>("ledger.prompt-cache");

/** Notes it on the exchange, for its row in the ledger: when its attempt ends, so before the exchange is settled. */
export function notePromptCache(exchange: Exchange, result: PromptCacheResult): void {
  exchange.set(Result, result);
}

/** Undefined where nobody measured it. */
export function promptCacheOf(exchange: Exchange): PromptCacheResult | undefined {
  return exchange.get(Result);
}

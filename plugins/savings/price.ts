import { type Rates, type Rewrite, totalInput, type Usage } from "@tokenman/plugin-sdk";
import type { LastTurn } from "./sessions.ts";

/** An attempt's usage as far as the input goes, with what its tokens cost. */
export interface BilledInput {
  readonly usage: Usage;
  readonly rates: Rates;
  /** Milliseconds since the epoch. */
  readonly at: number;
}

/** What the input cost, in nano-dollars. */
export function inputCost({ usage, rates }: Pick<BilledInput, "usage" | "rates">): number {
  return (
    usage.inputTokens * rates.input +
    usage.cacheReadTokens * rates.cacheRead +
    usage.cacheWrite5mTokens * rates.cacheWrite5m +
    usage.cacheWrite1hTokens * rates.cacheWrite1h
  );
}

/**
 * What each rewrite saved in nano-dollars, against the same request without it, by what the provider billed: what is new
 * would have been written to its cache (or been plain input, where it wrote nothing), what earlier turns had saved already
 * would have been read from it as far as the rest was. A rewrite that breaks the prefix also pays for what would
 * have been read without it.
 */
export function savedBy(
  rewrites: readonly Rewrite[],
  billed: BilledInput,
  last: LastTurn | undefined,
): readonly number[] {
  const { usage, rates, at } = billed;
  const read = usage.cacheReadTokens;
  const fresh = freshRate(usage, rates);
  const cached = last !== undefined && at - last.at < last.ttlMs ? last.cachedTokens : 0;
  const breaks = rewrites.some(({ breaksPrefix }) => breaksPrefix === true);
  // The turn before tells how much of the prompt is old; where nothing is known of it, what was read is the old part.
  const old = last?.totalTokens ?? read;
  const share = old > 0 ? Math.min(1, (breaks ? cached : read) / old) : 0;
  const known = share * rates.cacheRead + (1 - share) * fresh;
  let penaltyLeft = breaks ? Math.max(0, cached - tokensOf(rewrites) - read) * (fresh - rates.cacheRead) : 0;
  return rewrites.map((rewrite) => {
    let nanoUsd = rewrite.newTokens * fresh + rewrite.knownTokens * known - (rewrite.spentNanoUsd ?? 0);
    if (rewrite.breaksPrefix === true) {
      nanoUsd -= penaltyLeft;
      penaltyLeft = 0;
    }
    return nanoUsd;
  });
}

function tokensOf(rewrites: readonly Rewrite[]): number {
  return rewrites.reduce(
    (sum, { knownTokens, breaksPrefix }) => (breaksPrefix === true ? sum + knownTokens : sum),
    0,
  );
}

/** What a token costs that the provider has not cached yet. */
function freshRate({ cacheWrite5mTokens, cacheWrite1hTokens }: Usage, rates: Rates): number {
  const written = cacheWrite5mTokens + cacheWrite1hTokens;
  if (written === 0) return rates.input;
  return (cacheWrite5mTokens * rates.cacheWrite5m + cacheWrite1hTokens * rates.cacheWrite1h) / written;
}

/** What the provider's cache saved: against the same tokens as plain input. Negative where it was written in vain. */
export function cacheEffect({ usage, rates }: Pick<BilledInput, "usage" | "rates">): number {
  return totalInput(usage) * rates.input - inputCost({ usage, rates });
}

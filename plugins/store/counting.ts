import { CACHE, OUTCOMES, SAVINGS } from "./codes.ts";
import { FIGURE, type Figure } from "./figures.ts";

/** Which figures an exchange counts for: the same where it is written, and where it is read again (recount.ts). */

/** Figures that are an attempt's columns. */
export const ATTEMPT_SUMS = [
  ["input", FIGURE.inputTokens],
  ["cache_read", FIGURE.cacheReadTokens],
  ["cache_write_5m", FIGURE.cacheWrite5mTokens],
  ["cache_write_1h", FIGURE.cacheWrite1hTokens],
  ["output", FIGURE.outputTokens],
  ["reasoning", FIGURE.reasoningTokens],
  ["cost_input", FIGURE.costInput],
  ["cost_cache_read", FIGURE.costCacheRead],
  ["cost_cache_write_5m", FIGURE.costCacheWrite5m],
  ["cost_cache_write_1h", FIGURE.costCacheWrite1h],
  ["cost_output", FIGURE.costOutput],
  ["cost_server_tools", FIGURE.costServerTools],
  ["cost", FIGURE.cost],
] as const satisfies readonly (readonly [string, Figure])[];
export const OUTCOME_FIGURES: readonly (Figure | undefined)[] = OUTCOMES.map((outcome) =>
  outcome === "open" ? undefined : FIGURE[outcome],
);
export const CACHE_FIGURES: readonly (Figure | undefined)[] = CACHE.map(
  (said) =>
    ({
      HIT: FIGURE.cacheHits,
      MISS: FIGURE.cacheMisses,
      COALESCED: FIGURE.cacheCoalesced,
      BYPASS: undefined,
    })[said],
);
/** By what saved: what it saved, what it lost. */
export const SAVING_FIGURES: readonly (readonly [Figure, Figure])[] = SAVINGS.map(
  (kind) =>
    (
      ({
        "response-cache": [FIGURE.savedResponseCache, FIGURE.lostResponseCache],
        "provider-cache": [FIGURE.savedProviderCache, FIGURE.lostProviderCache],
        compression: [FIGURE.savedCompression, FIGURE.lostCompression],
      }) as const
    )[kind],
);

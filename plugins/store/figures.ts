import type { LedgerFigures } from "@tokenman/plugin-sdk";

/** What rollups sum, in the order of their columns: the column and the name outside. */
export const FIGURES = [
  ["requests", "requests"],
  ["answered", "answered"],
  ["aborted", "aborted"],
  ["partial", "partial"],
  ["refused", "refused"],
  ["failed", "failed"],
  ["interrupted", "interrupted"],
  ["errors", "errors"],
  ["streams", "streams"],
  ["cache_hits", "cacheHits"],
  ["cache_coalesced", "cacheCoalesced"],
  ["cache_misses", "cacheMisses"],
  ["attempts", "attempts"],
  ["input", "inputTokens"],
  ["cache_read", "cacheReadTokens"],
  ["cache_write_5m", "cacheWrite5mTokens"],
  ["cache_write_1h", "cacheWrite1hTokens"],
  ["output", "outputTokens"],
  ["reasoning", "reasoningTokens"],
  ["cost_input", "costInput"],
  ["cost_cache_read", "costCacheRead"],
  ["cost_cache_write_5m", "costCacheWrite5m"],
  ["cost_cache_write_1h", "costCacheWrite1h"],
  ["cost_output", "costOutput"],
  ["cost_server_tools", "costServerTools"],
  ["cost", "cost"],
  ["cost_estimated", "costEstimated"],
  ["unpriced", "unpriced"],
  ["saved_tokens", "savedTokens"],
  ["saved_response_cache", "savedResponseCache"],
  ["saved_provider_cache", "savedProviderCache"],
  ["saved_compression", "savedCompression"],
  ["lost_response_cache", "lostResponseCache"],
  ["lost_provider_cache", "lostProviderCache"],
  ["lost_compression", "lostCompression"],
  ["duration_us", "durationUs"],
  ["first_byte_us", "firstByteUs"],
  ["first_bytes", "firstBytes"],
] as const satisfies readonly (readonly [string, keyof LedgerFigures])[];

export type Sums = { -readonly [K in keyof LedgerFigures]: number };

/** Where each figure is among them. */
export const FIGURE = Object.fromEntries(FIGURES.map(([, name], index) => [name, index])) as Readonly<
  Record<keyof LedgerFigures, number>
>;
/** A position in {@link FIGURES}. */
export type Figure = number;

export function noFigures(): Sums {
  return Object.fromEntries(FIGURES.map(([, name]) => [name, 0])) as Sums;
}

/** The columns as a SELECT's list that sums them under their outside names. */
export const SUMMED: string = FIGURES.map(([column, name]) => `total(${column}) AS ${name}`).join(", ");

export interface BackoffLimits {
  readonly baseMs: number;
  readonly maxMs: number;
}

/**
 * Milliseconds to wait after the `failures`th failure of one provider in a row (1 is the first): exponential, with full
 * jitter, so that clients that failed together do not come back together. `random` is in [0, 1).
 */
export function backoffMs(failures: number, { baseMs, maxMs }: BackoffLimits, random: number): number {
  return random * Math.min(maxMs, baseMs * 2 ** (failures - 1));
}

/**
 * The same, where the provider may have said how long: then not earlier than that, spread over a further `baseMs`. Never
 * above `maxMs`; a time beyond it is spread below it, as otherwise all would come back in the same instant.
 */
export function waitMs(
  failures: number,
  toldMs: number | undefined,
  limits: BackoffLimits,
  random: number,
): number {
  const { baseMs, maxMs } = limits;
  // A time that has passed says no more than that there is none.
  if (toldMs === undefined || toldMs <= 0) return backoffMs(failures, limits, random);
  if (toldMs >= maxMs) return maxMs - random * Math.min(baseMs, maxMs);
  return Math.min(maxMs, toldMs + random * baseMs);
}

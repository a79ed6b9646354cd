import type { Usage } from "./dialect.ts";

/**
 * The most tokens of one kind, or uses of one tool, that a reply is believed to have: a thousand times the largest context
 * window there is, and so few that the sums of nine million such replies are still exact in a double.
 */
export const MOST_OF_A_REPLY = 1e9;

/**
 * A count in a provider's usage: undefined where it tells none (absent or null), NaN where it is none that a reply can
 * have: negative, no whole number, a text, or above {@link MOST_OF_A_REPLY}. NaN goes through whatever is worked out with
 * it, into a usage that {@link usageFault} finds.
 */
export function usageCountOf(value: unknown): number | undefined {
  if (value === undefined || value === null) return undefined;
  return isCount(value) ? value : Number.NaN;
}

/** Why a usage cannot be true: the count of it that no reply has. Undefined where it may be. */
export function usageFault(usage: Usage): string | undefined {
  if (
    isCount(usage.inputTokens) &&
    isCount(usage.cacheReadTokens) &&
    isCount(usage.cacheWrite5mTokens) &&
    isCount(usage.cacheWrite1hTokens) &&
    isCount(usage.outputTokens) &&
    isCount(usage.reasoningTokens)
  ) {
    for (const tool in usage.serverTools)
      if (!isCount(usage.serverTools[tool])) return faulty("serverTools", usage.serverTools[tool]);
    return undefined;
  }
  const name = TOKENS.find((each) => !isCount(usage[each]))!;
  return faulty(name, usage[name]);
}

const TOKENS = [
  "inputTokens",
  "cacheReadTokens",
  "cacheWrite5mTokens",
  "cacheWrite1hTokens",
  "outputTokens",
  "reasoningTokens",
] as const satisfies readonly (keyof Usage)[];

function isCount(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= MOST_OF_A_REPLY;
}

function faulty(name: string, value: unknown): string {
  return Number.isNaN(value)
    ? `its ${name} are not a whole number from 0 to ${MOST_OF_A_REPLY}`
    : `its ${name} are ${String(value).slice(0, 40)}, not a whole number from 0 to ${MOST_OF_A_REPLY}`;
}

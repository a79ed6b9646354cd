import type { LedgerTrialSums } from "./ledger.ts";

/** Fewer sessions on one side say nothing about the sessions to come. */
export const MIN_TRIAL_SESSIONS = 5;

/** What compressors save of the input's cost, by comparison with sessions that were held out. 0.1 is 10 %; negative: a loss. */
export interface HoldoutEffect {
  readonly saved: number;
  /** Between them lies the truth, 95 times of 100. */
  readonly low: number;
  readonly high: number;
}

/**
 * Compares what a token of input cost in sessions that compressors may change with what it cost in those held out: the
 * ratio of two ratios of sums, whose sessions are the independent observations (their turns are not). The interval comes
 * from the ratio's logarithm by the delta method, with Student's t at Welch's degrees of freedom. Undefined with fewer than
 * {@link MIN_TRIAL_SESSIONS} sessions on either side.
 */
export function holdoutEffect(treated: LedgerTrialSums, held: LedgerTrialSums): HoldoutEffect | undefined {
  const left = costOf(treated);
  const right = costOf(held);
  if (left === undefined || right === undefined) return undefined;
  const variance = left.variance + right.variance;
  const ratio = Math.log(left.perToken / right.perToken);
  if (variance === 0)
    return { saved: 1 - Math.exp(ratio), low: 1 - Math.exp(ratio), high: 1 - Math.exp(ratio) };
  const freedom =
    variance ** 2 / (left.variance ** 2 / (treated.sessions - 1) + right.variance ** 2 / (held.sessions - 1));
  const half = studentT975(freedom) * Math.sqrt(variance);
  return { saved: 1 - Math.exp(ratio), low: 1 - Math.exp(ratio + half), high: 1 - Math.exp(ratio - half) };
}

/** Cost by token, and the variance of its logarithm. */
function costOf(sums: LedgerTrialSums): { readonly perToken: number; readonly variance: number } | undefined {
  const { sessions, originalTokens, paidTokens, originalSquares, paidSquares, products } = sums;
  if (sessions < MIN_TRIAL_SESSIONS || originalTokens <= 0 || paidTokens <= 0) return undefined;
  const perToken = paidTokens / originalTokens;
  // Of each session's paid tokens around what its original ones would have cost on the average.
  const residual = (paidSquares - 2 * perToken * products + perToken ** 2 * originalSquares) / (sessions - 1);
  const mean = originalTokens / sessions;
  return { perToken, variance: Math.max(0, residual) / (sessions * mean ** 2 * perToken ** 2) };
}

/** The 97.5 % point of Student's t, by the expansion around the normal distribution's; within 1 % from 4 degrees on. */
function studentT975(freedom: number): number {
  const z = 1.959964;
  const [z3, z5, z7] = [z ** 3, z ** 5, z ** 7];
  return (
    z +
    (z3 + z) / (4 * freedom) +
    (5 * z5 + 16 * z3 + 3 * z) / (96 * freedom ** 2) +
    (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * freedom ** 3)
  );
}

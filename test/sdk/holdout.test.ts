import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { holdoutEffect, type LedgerTrialSums, MIN_TRIAL_SESSIONS } from "@tokenman/plugin-sdk";
import { Random } from "@tokenman/plugin-sdk/testkit";

function sums(sessions: readonly (readonly [original: number, paid: number])[]): LedgerTrialSums {
  const total = (of: (original: number, paid: number) => number): number =>
    sessions.reduce((sum, [original, paid]) => sum + of(original, paid), 0);
  return {
    sessions: sessions.length,
    requests: sessions.length,
    originalTokens: total((original) => original),
    paidTokens: total((_, paid) => paid),
    originalSquares: total((original) => original ** 2),
    paidSquares: total((_, paid) => paid ** 2),
    products: total((original, paid) => original * paid),
  };
}

/** Sessions of very different lengths, whose tokens cost `rate` each, more or less. */
function group(random: Random, count: number, rate: number): LedgerTrialSums {
  return sums(
    Array.from({ length: count }, () => {
      const original = 1_000 * 2 ** (random.below(1_000) / 100);
      return [original, original * rate * (0.5 + random.below(1_001) / 1_000)] as const;
    }),
  );
}

describe("the effect by comparison with held-out sessions", () => {
  it("is what a token costs here against there", () => {
    const effect = holdoutEffect(sums(Array(5).fill([100, 40])), sums(Array(5).fill([1_000, 500])));
    assert.ok(Math.abs(effect!.saved - 0.2) < 1e-9);
    assert.ok(Math.abs(effect!.low - 0.2) < 1e-6 && Math.abs(effect!.high - 0.2) < 1e-6);
  });

  it("agrees with an interval worked out by hand", () => {
    // Held: each token costs 1 exactly. Treated: ratio 0.8; residuals ±10, 0 around it of sessions of 100.
    const treated = sums([
      [100, 70],
      [100, 90],
      [100, 80],
      [100, 80],
      [100, 80],
    ]);
    const held = sums(Array(5).fill([100, 100]));
    // Variance of the ratio: (200 / 4) / (5 · 100²) = 0.001; of its logarithm 0.001 / 0.64; t of 4 degrees is 2.776.
    const half = 2.776 * Math.sqrt(0.001 / 0.64);
    const effect = holdoutEffect(treated, held)!;
    assert.ok(Math.abs(effect.saved - 0.2) < 1e-9);
    assert.ok(Math.abs(effect.low - (1 - 0.8 * Math.exp(half))) < 2e-3, String(effect.low));
    assert.ok(Math.abs(effect.high - (1 - 0.8 * Math.exp(-half))) < 2e-3, String(effect.high));
  });

  it("says nothing of few sessions, or of none", () => {
    const few = sums(Array(MIN_TRIAL_SESSIONS - 1).fill([100, 50]));
    const enough = sums(Array(MIN_TRIAL_SESSIONS).fill([100, 50]));
    assert.equal(holdoutEffect(few, enough), undefined);
    assert.equal(holdoutEffect(enough, few), undefined);
    assert.equal(holdoutEffect(sums([]), sums([])), undefined);
    assert.equal(holdoutEffect(enough, sums(Array(9).fill([100, 0]))), undefined);
  });

  it("has the truth between its bounds about 95 times of 100", () => {
    const random = new Random(7);
    let hits = 0;
    const trials = 400;
    for (let trial = 0; trial < trials; trial++) {
      const effect = holdoutEffect(group(random, 200, 0.9), group(random, 40, 1))!;
      if (effect.low <= 0.1 && 0.1 <= effect.high) hits++;
    }
    // Four standard deviations of a share of 0.95, and a little for the skew of few long sessions.
    assert.ok(hits / trials > 0.88 && hits / trials < 0.995, `${hits} of ${trials}`);
  });
});

import type { LedgerTrial } from "@tokenman/plugin-sdk";

type Growing = { -readonly [K in keyof LedgerTrial]: LedgerTrial[K] };

/** What sessions add to the comparison with held-out ones, gathered so that the ledger is told once for many exchanges. */
export class TrialSums {
  #sums = new Map<string, Growing>();

  add(of: Pick<LedgerTrial, "at" | "session" | "held">, originalTokens: number, paidTokens: number): void {
    const { session } = of;
    const sums = this.#sums.get(session);
    if (sums === undefined) this.#sums.set(session, { ...of, requests: 1, originalTokens, paidTokens });
    else {
      sums.requests++;
      sums.originalTokens += originalTokens;
      sums.paidTokens += paidTokens;
    }
  }
  /** All that was gathered since the last time. */
  take(): readonly LedgerTrial[] {
    if (this.#sums.size === 0) return [];
    const taken = [...this.#sums.values()];
    this.#sums = new Map();
    return taken;
  }
}

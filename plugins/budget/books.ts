import type { BudgetWindow } from "@tokenman/plugin-sdk";
import { Outputs } from "./outputs.ts";

/** What this process knows of a window. The ledger has the truth; this says which part of it is still open. */
interface Tally {
  readonly window: BudgetWindow;
  /** Nano-dollars spent and reserved, as the ledger said last. */
  used: number;
  /** The part of it that requests under way have reserved. */
  reserved: number;
  /** The highest percentage at which an alert was raised. */
  alerted: number;
  refused: boolean;
}

/** A settlement that the ledger could not take yet. */
export interface Unsettled {
  readonly nanoUsd: number;
  readonly at: number;
  /** To be called when the ledger has it. */
  done(): void;
}

const MAX_SAID = 1_000;
/** A window that is over stays known for as long as an exchange may last. */
const LINGER_MS = 86_400_000;

/** What outlives a reload: open reservations, raised alerts, learned outputs. */
export class Books {
  readonly outputs = new Outputs();
  readonly unsettled = new Map<string, Unsettled>();
  readonly #tallies = new Map<string, Tally>();
  readonly #said = new Set<string>();

  /** Whether this is the first time that it is said. */
  sayOnce(what: string): boolean {
    if (this.#said.has(what) || this.#said.size >= MAX_SAID) return false;
    this.#said.add(what);
    return true;
  }

  /** A reservation of `nanoUsd` came through; `used` is what the ledger has of the window with it. */
  reserved(
    window: BudgetWindow,
    nanoUsd: number,
    used: number,
    thresholds: readonly number[],
  ): number | undefined {
    const tally = this.#tally(window, used - nanoUsd, thresholds);
    tally.reserved += nanoUsd;
    tally.used = used;
    return passed(tally, window, thresholds);
  }
  /** A reservation was settled. Returns the threshold (a percentage) that is passed by it, once. */
  settled(
    window: BudgetWindow,
    nanoUsd: number,
    spent: number,
    thresholds: readonly number[],
  ): number | undefined {
    const tally = this.#tallies.get(keyOf(window));
    if (tally === undefined) return undefined;
    tally.reserved = Math.max(0, tally.reserved - nanoUsd);
    tally.used = Math.max(0, tally.used + spent - nanoUsd);
    return passed(tally, window, thresholds);
  }
  /** Whether this is the first refusal of the window. */
  refused(window: BudgetWindow, used: number, thresholds: readonly number[]): boolean {
    const tally = this.#tally(window, used, thresholds);
    tally.used = used;
    const first = !tally.refused;
    tally.refused = true;
    return first;
  }
  reservedIn(window: BudgetWindow): number {
    return this.#tallies.get(keyOf(window))?.reserved ?? 0;
  }
  spentIn(window: BudgetWindow): number {
    const { used = 0, reserved = 0 } = this.#tallies.get(keyOf(window)) ?? {};
    return Math.max(0, used - reserved);
  }
  /** Windows that hold at a time. */
  current(at: number): BudgetWindow[] {
    return [...this.#tallies.values()]
      .map(({ window }) => window)
      .filter(({ from, to }) => at >= from && at < to);
  }

  #tally(window: BudgetWindow, usedBefore: number, thresholds: readonly number[]): Tally {
    const key = keyOf(window);
    let tally = this.#tallies.get(key);
    if (tally === undefined) {
      this.#forget(window.from);
      tally = { window, used: usedBefore, reserved: 0, alerted: 0, refused: false };
      // What was passed before this process saw the window was told by the one that saw it pass.
      passed(tally, window, thresholds);
      this.#tallies.set(key, tally);
    } else if (tally.window.limitNanoUsd !== window.limitNanoUsd && Number.isFinite(window.limitNanoUsd)) {
      tally = { ...tally, window };
      this.#tallies.set(key, tally);
    }
    return tally;
  }
  #forget(now: number): void {
    for (const [key, { window, reserved }] of this.#tallies)
      if (reserved === 0 && window.to < now - LINGER_MS) this.#tallies.delete(key);
  }
}

/** The highest threshold that the spent part has newly passed. */
function passed(
  tally: Tally,
  { limitNanoUsd }: BudgetWindow,
  thresholds: readonly number[],
): number | undefined {
  const percent = (100 * (tally.used - tally.reserved)) / limitNanoUsd;
  const highest = Math.max(0, ...thresholds.filter((threshold) => percent >= threshold && threshold > 0));
  if (highest <= tally.alerted) return undefined;
  tally.alerted = highest;
  return highest;
}

export function keyOf({ scope, period, from }: BudgetWindow): string {
  return `${period} ${from} ${scope}`;
}

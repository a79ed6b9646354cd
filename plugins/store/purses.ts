import type { BudgetWindow, ReserveResult } from "@tokenman/plugin-sdk";
import { keyOf, windowsText } from "./journal-lines.ts";

const DAY_MS = 86_400_000;

/**
 * What this process holds of a window. Nano-dollars, whole. The database counts `leased` as used, be it spent or not, so
 * that of it this process can give without asking: what is neither reserved nor spent is `free`.
 */
export class Purse {
  readonly window: BudgetWindow;
  /** `free`, `open`, and what was spent since the database was told last. */
  leased = 0;
  /** Below 0 where more was spent than reserved. */
  free = 0;
  /** In reservations that are not settled. */
  open = 0;
  /** What the database said last that is used of the window, `leased` and all that others hold. */
  used = 0;

  constructor(window: BudgetWindow) {
    this.window = window;
  }
  /** Spent and reserved by anybody, with another `nanoUsd`. */
  usedWith(nanoUsd: number): number {
    return this.used - this.free + nanoUsd;
  }
}

/** The purses of some windows. */
export interface PurseSet {
  readonly windows: readonly BudgetWindow[];
  readonly purses: readonly Purse[];
  /** The windows, as a journal has them. */
  readonly text: string;
}

/** All that this process holds. Who asks again for the same array of windows is answered fast. */
export class Purses {
  readonly #purses = new Map<string, Purse>();
  readonly #sets = new WeakMap<readonly BudgetWindow[], PurseSet>();

  of(windows: readonly BudgetWindow[]): PurseSet {
    const known = this.#sets.get(windows);
    if (known !== undefined) return known;
    const purses = windows.map((window) => this.#purse(window));
    const set: PurseSet = { windows, purses, text: windowsText(windows) };
    this.#sets.set(windows, set);
    return set;
  }
  find(window: BudgetWindow): Purse | undefined {
    return this.#purses.get(keyOf(window));
  }
  all(): Iterable<Purse> {
    return this.#purses.values();
  }

  #purse(window: BudgetWindow): Purse {
    const key = keyOf(window);
    let purse = this.#purses.get(key);
    if (purse === undefined) {
      this.#forget(window.from);
      purse = new Purse(window);
      this.#purses.set(key, purse);
    }
    return purse;
  }
  /** The database forgets windows that are over for a day, too. */
  #forget(now: number): void {
    for (const [key, { window, open }] of this.#purses)
      if (open === 0 && window.to < now - DAY_MS) this.#purses.delete(key);
  }
}

/** Whether there is room in all windows. Nothing is asked of anybody. */
export function fits({ windows, purses }: PurseSet, nanoUsd: number): boolean {
  for (let index = 0; index < purses.length; index++) {
    const purse = purses[index]!;
    // What costs nothing needs no room, be it that more was spent than reserved.
    if (nanoUsd > 0 && purse.free < nanoUsd) return false;
    if (purse.usedWith(nanoUsd) > windows[index]!.limitNanoUsd) return false;
  }
  return true;
}
/** Takes it from all of them. */
export function take({ purses }: PurseSet, nanoUsd: number): ReserveResult {
  const usedNanoUsd: number[] = [];
  for (const purse of purses) {
    purse.free -= nanoUsd;
    purse.open += nanoUsd;
    usedNanoUsd.push(purse.usedWith(0));
  }
  return { ok: true, usedNanoUsd };
}
/** Puts what was spent in the place of what was reserved. */
export function settle({ purses }: PurseSet, nanoUsd: number, spentNanoUsd: number): void {
  for (const purse of purses) {
    purse.open -= nanoUsd;
    purse.free += nanoUsd - spentNanoUsd;
  }
}
/** Why there is no room, by what the database has just said; undefined where there is. */
export function refusal({ windows, purses }: PurseSet, nanoUsd: number): ReserveResult | undefined {
  for (let index = 0; index < purses.length; index++) {
    const window = windows[index]!;
    const used = purses[index]!.usedWith(0);
    if (used + nanoUsd > window.limitNanoUsd) return { ok: false, window, usedNanoUsd: used };
  }
  return undefined;
}

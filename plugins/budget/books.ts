import type { BudgetWindow } from "@tokenman/plugin-sdk";
import { Outputs } from "./outputs.ts";

/** Bounds in the place of counts may hold this share of a limit, while no more than this share of it is used at all. */
const BOUNDS_SHARE = 0.1;
const FAR_SHARE = 0.5;

const MAX_SAID = 1_000;
/** A window that is over stays known for as long as an exchange may last. */
const LINGER_MS = 86_400_000;

/** A settlement that the ledger could not take yet. */
export interface Unsettled {
  readonly nanoUsd: number;
  readonly at: number;
  /** To be called when the ledger has it. */
  done(): void;
}

/** What this process knows of a window. The ledger has the truth; this says which part of it is still open. */
export class Tally {
  window: BudgetWindow;
  /** Nano-dollars spent and reserved, as the ledger said last; undefined before it has said anything. */
  #used: number | undefined;
  /** The part of it that requests under way have reserved. */
  #reserved = 0;
  /** What is being asked for, and is not in it yet. */
  #asked = 0;
  /** The part of reserved and asked for that is bounds in the place of counts. */
  #bounds = 0;
  /** The highest percentage at which an alert was raised. */
  #alerted = 0;
  #isRefusing = false;

  constructor(window: BudgetWindow) {
    this.window = window;
  }

  get reserved(): number {
    return this.#reserved;
  }
  get spent(): number {
    return Math.max(0, (this.#used ?? 0) - this.#reserved);
  }
  /**
   * Whether the window's limit is so far away that a request may hold a bound of what it costs. So few of them may, that
   * what they hold too much keeps nobody out before nine tenths of the limit are used.
   */
  hasRoomForBound(nanoUsd: number): boolean {
    const { limitNanoUsd } = this.window;
    return (
      this.#used !== undefined &&
      this.#used + this.#asked + nanoUsd <= limitNanoUsd * FAR_SHARE &&
      this.#bounds + nanoUsd <= limitNanoUsd * BOUNDS_SHARE
    );
  }

  asks(nanoUsd: number, isBound: boolean): void {
    this.#asked += nanoUsd;
    if (isBound) this.#bounds += nanoUsd;
  }
  /** It was not granted, or nobody knows. */
  failed(nanoUsd: number, isBound: boolean): void {
    this.#asked -= nanoUsd;
    if (isBound) this.#bounds -= nanoUsd;
  }
  /** A reservation came through; `used` is what the ledger has with it. Returns as {@link settled}. */
  granted(nanoUsd: number, used: number, thresholds: readonly number[]): number | undefined {
    this.#asked -= nanoUsd;
    // What was passed before this process saw the window was told by the one that saw it pass.
    if (this.#used === undefined) this.#known(used - nanoUsd, thresholds);
    this.#reserved += nanoUsd;
    this.#used = used;
    return this.#passed(thresholds);
  }
  /** A reservation is settled. Returns the threshold (a percentage) that is passed by it, once. */
  settled(
    nanoUsd: number,
    spent: number,
    isBound: boolean,
    thresholds: readonly number[],
  ): number | undefined {
    if (isBound) this.#bounds -= nanoUsd;
    this.#reserved = Math.max(0, this.#reserved - nanoUsd);
    this.#used = Math.max(0, (this.#used ?? 0) + spent - nanoUsd);
    return this.#passed(thresholds);
  }
  /** The ledger could not take a settlement: the reservation stands. */
  reopened(nanoUsd: number, spent: number, isBound: boolean): void {
    if (isBound) this.#bounds += nanoUsd;
    this.#reserved += nanoUsd;
    this.#used = (this.#used ?? 0) + nanoUsd - spent;
  }
  /** Whether this is the first refusal of what was no bound. */
  refused(used: number, isBound: boolean, thresholds: readonly number[]): boolean {
    if (this.#used === undefined) this.#known(used, thresholds);
    this.#used = used;
    if (isBound) return false;
    const first = !this.#isRefusing;
    this.#isRefusing = true;
    return first;
  }

  #known(used: number, thresholds: readonly number[]): void {
    this.#used = used;
    this.#passed(thresholds);
  }
  /** The highest threshold that the spent part has newly passed. */
  #passed(thresholds: readonly number[]): number | undefined {
    const percent = (100 * ((this.#used ?? 0) - this.#reserved)) / this.window.limitNanoUsd;
    let highest = 0;
    for (const threshold of thresholds) if (threshold > highest && percent >= threshold) highest = threshold;
    if (highest <= this.#alerted) return undefined;
    this.#alerted = highest;
    return highest;
  }
}

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

  /** What is known of a window; its limit is from now on the one that it has here. */
  tally(window: BudgetWindow): Tally {
    const key = keyOf(window);
    let tally = this.#tallies.get(key);
    if (tally === undefined) {
      this.#forget(window.from);
      tally = new Tally(window);
      this.#tallies.set(key, tally);
    } else tally.window = window;
    return tally;
  }
  reservedIn(window: BudgetWindow): number {
    return this.#tallies.get(keyOf(window))?.reserved ?? 0;
  }
  /** Windows that hold at a time. */
  current(at: number): BudgetWindow[] {
    return [...this.#tallies.values()]
      .map(({ window }) => window)
      .filter(({ from, to }) => at >= from && at < to);
  }

  #forget(now: number): void {
    for (const [key, { window, reserved }] of this.#tallies)
      if (reserved === 0 && window.to < now - LINGER_MS) this.#tallies.delete(key);
  }
}

export function keyOf({ scope, period, from }: BudgetWindow): string {
  return `${period} ${from} ${scope}`;
}

import type { BudgetWindow, Calendar, Ledger } from "@tokenman/plugin-sdk";
import { timeOf } from "./alerts.ts";
import { type Books, keyOf } from "./books.ts";
import { type Limit, windowOf } from "./limits.ts";
import type { BudgetConfig } from "./schema.ts";

const NANOS_PER_USD = 1_000_000_000;
/** Under steady traffic no two readings agree; the last one has to do. */
const MAX_READS = 5;

/** What `GET /api/security/budget` answers. Money is in US dollars, times are in ISO 8601. */
export interface BudgetReport {
  /** A budget is kept, be it for one project only. */
  readonly enabled: true;
  readonly reserve: BudgetConfig["reserve"];
  readonly unpriced: BudgetConfig["unpriced"];
  readonly time_zone: string;
  readonly windows: readonly {
    readonly scope: string;
    readonly period: string;
    readonly limit: number;
    readonly spent: number;
    /** By requests under way. */
    readonly reserved: number;
    readonly resets_at: string;
  }[];
}

/** Limits that hold, and the days they go by. */
export interface LimitsInForce {
  readonly limits: readonly Limit[];
  readonly calendar: Calendar;
}

/**
 * Every shared limit's window, and those of projects that have been seen since the start, as far as their limits still
 * hold. The shared limits come first in `inForce`. Rejects with TM_LEDGER_UNAVAILABLE.
 */
export async function report(
  config: BudgetConfig,
  inForce: readonly LimitsInForce[],
  parts: { readonly ledger: Ledger; readonly books: Books; readonly calendar: Calendar },
): Promise<BudgetReport> {
  const { ledger, books, calendar } = parts;
  const at = Date.now();
  const windows = new Map<string, BudgetWindow>();
  for (const limit of inForce[0]?.limits ?? []) {
    const window = windowOf(limit, "", calendar, at);
    windows.set(keyOf(window), window);
  }
  for (const seen of books.current(at)) {
    const window = windowInForce(seen, inForce, at);
    if (window !== undefined) windows.set(keyOf(window), window);
  }
  const all = [...windows.values()];
  let reserved = all.map((window) => books.reservedIn(window));
  let used: readonly number[];
  for (let tries = 1; ; tries++) {
    used = await ledger.used(all);
    const now = all.map((window) => books.reservedIn(window));
    const isSame = now.every((amount, index) => amount === reserved[index]);
    reserved = now;
    // What was reserved or settled while the ledger was asked would be counted as spent, or not at all.
    if (isSame || tries === MAX_READS) break;
  }
  return {
    enabled: true,
    reserve: config.reserve,
    unpriced: config.unpriced,
    time_zone: config.time_zone,
    windows: all.map((window, index) => {
      const held = Math.min(reserved[index] ?? 0, used[index] ?? 0);
      return {
        scope: window.scope,
        period: window.period,
        limit: window.limitNanoUsd / NANOS_PER_USD,
        spent: ((used[index] ?? 0) - held) / NANOS_PER_USD,
        reserved: held / NANOS_PER_USD,
        resets_at: timeOf(window.to),
      };
    }),
  };
}

const PROJECT = /^project:([^/]*)/;

/** The window as a limit that holds makes it: a reload may have dropped the limit, changed it, or moved its days. */
function windowInForce(
  window: BudgetWindow,
  inForce: readonly LimitsInForce[],
  at: number,
): BudgetWindow | undefined {
  const project = PROJECT.exec(window.scope)?.[1] ?? "";
  for (const { limits, calendar } of inForce) {
    for (const limit of limits) {
      const made = windowOf(limit, project, calendar, at);
      if (keyOf(made) === keyOf(window)) return made;
    }
  }
  return undefined;
}

import type { DatabaseSync, StatementSync } from "node:sqlite";
import { FIGURES, noFigures, type Sums } from "./figures.ts";

export const MINUTE_MS = 60_000;
export const HOUR_MS = 3_600_000;
export const DAY_MS = 86_400_000;

/** What rollups are kept by; 0 is what has none. */
export interface RollupKey {
  readonly project: number;
  readonly provider: number;
  readonly model: number;
}

const columns = FIGURES.map(([column]) => column);
const sums = columns.map((column) => `${column} = ${column} + excluded.${column}`).join(", ");

function upsert(db: DatabaseSync, table: string, key: readonly string[]): StatementSync {
  const all = [...key, ...columns];
  return db.prepare(
    `INSERT INTO ${table} (${all.join(", ")}) VALUES (${all.map(() => "?").join(", ")})
     ON CONFLICT (${key.join(", ")}) DO UPDATE SET ${sums}`,
  );
}

/** Sums up a transaction's changes, and adds them to the rollups before it commits: each row is touched once. */
export class Rollup {
  readonly #minutes = new Map<number, Sums>();
  readonly #named = new Map<
    string,
    { readonly hour: number; readonly key: RollupKey; readonly sums: Sums }
  >();
  readonly #minutely: StatementSync;
  readonly #hourlyTotal: StatementSync;
  readonly #dailyTotal: StatementSync;
  readonly #hourly: StatementSync;
  readonly #daily: StatementSync;

  constructor(db: DatabaseSync) {
    this.#minutely = upsert(db, "minutely_total", ["at"]);
    this.#hourlyTotal = upsert(db, "hourly_total", ["at"]);
    this.#dailyTotal = upsert(db, "daily_total", ["at"]);
    this.#hourly = upsert(db, "hourly", ["at", "project", "provider", "model"]);
    this.#daily = upsert(db, "daily", ["at", "project", "provider", "model"]);
  }

  /** Adds figures of an exchange that began at `ms`. */
  add(ms: number, key: RollupKey, figures: Partial<Sums>): void {
    const { total, named } = this.#at(ms, key);
    for (const name in figures) {
      const figure = name as keyof Sums;
      const value = figures[figure]!;
      total[figure] += value;
      named[figure] += value;
    }
  }
  #at(ms: number, key: RollupKey): { readonly total: Sums; readonly named: Sums } {
    const minute = Math.floor(ms / MINUTE_MS);
    let total = this.#minutes.get(minute);
    if (total === undefined) {
      total = noFigures();
      this.#minutes.set(minute, total);
    }
    const hour = Math.floor(ms / HOUR_MS);
    const name = `${hour} ${key.project} ${key.provider} ${key.model}`;
    let named = this.#named.get(name);
    if (named === undefined) {
      named = { hour, key, sums: noFigures() };
      this.#named.set(name, named);
    }
    return { total, named: named.sums };
  }
  write(): void {
    for (const [minute, figures] of this.#minutes) {
      const values = FIGURES.map(([, name]) => figures[name]);
      this.#minutely.run(minute, ...values);
      this.#hourlyTotal.run(Math.floor(minute / 60), ...values);
      this.#dailyTotal.run(Math.floor(minute / 1440), ...values);
    }
    for (const { hour, key, sums: figures } of this.#named.values()) {
      const values = FIGURES.map(([, name]) => figures[name]);
      this.#hourly.run(hour, key.project, key.provider, key.model, ...values);
      this.#daily.run(Math.floor(hour / 24), key.project, key.provider, key.model, ...values);
    }
    this.forget();
  }
  forget(): void {
    this.#minutes.clear();
    this.#named.clear();
  }
}

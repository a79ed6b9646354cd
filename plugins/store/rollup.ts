import type { DatabaseSync, StatementSync } from "node:sqlite";
import { FIGURES, type Figure } from "./figures.ts";
import { SavingSums } from "./saving-sums.ts";

export const MINUTE_MS = 60_000;
export const HOUR_MS = 3_600_000;
export const DAY_MS = 86_400_000;

const columns = FIGURES.map(([column]) => column);
const sums = columns.map((column) => `${column} = ${column} + excluded.${column}`).join(", ");

function upsert(db: DatabaseSync, table: string, key: readonly string[]): StatementSync {
  const all = [...key, ...columns];
  return db.prepare(
    `INSERT INTO ${table} (${all.join(", ")}) VALUES (${all.map(() => "?").join(", ")})
     ON CONFLICT (${key.join(", ")}) DO UPDATE SET ${sums}`,
  );
}

/** Figures of an exchange, which count for the minute in which it began and, in the hour, for its names. */
export class RollupSums {
  readonly #total: Float64Array;
  readonly #named: Float64Array;

  constructor(total: Float64Array, named: Float64Array) {
    this.#total = total;
    this.#named = named;
  }
  add(figure: Figure, value: number): void {
    this.#total[figure]! += value;
    this.#named[figure]! += value;
  }
  /** As {@link add}; nothing for no figure. */
  addTo(figure: Figure | undefined, value: number): void {
    if (figure !== undefined) this.add(figure, value);
  }
}

interface Named {
  /** Hour, project, provider, model. */
  readonly key: readonly [number, number, number, number];
  readonly sums: Float64Array;
}

/** Sums up a transaction's changes, and adds them to the rollups before it commits: each row is touched once. */
export class Rollup {
  readonly savings: SavingSums;
  readonly #minutes = new Map<number, Float64Array>();
  readonly #named = new Map<string, Named>();
  readonly #minutely: StatementSync;
  readonly #hourlyTotal: StatementSync;
  readonly #dailyTotal: StatementSync;
  readonly #hourly: StatementSync;
  readonly #daily: StatementSync;
  /** The place that was last asked for: the next exchange mostly counts there, too. */
  #last: { readonly minute: number; readonly key: Named["key"]; readonly sums: RollupSums } | undefined;

  constructor(db: DatabaseSync) {
    this.savings = new SavingSums(db);
    this.#minutely = upsert(db, "minutely_total", ["at"]);
    this.#hourlyTotal = upsert(db, "hourly_total", ["at"]);
    this.#dailyTotal = upsert(db, "daily_total", ["at"]);
    this.#hourly = upsert(db, "hourly", ["at", "project", "provider", "model"]);
    this.#daily = upsert(db, "daily", ["at", "project", "provider", "model"]);
  }

  /** Where figures of an exchange are added that began at `ms`. Names are ids; 0 is what has none. */
  of(ms: number, project: number, provider: number, model: number): RollupSums {
    const minute = Math.floor(ms / MINUTE_MS);
    const last = this.#last;
    if (last !== undefined && last.minute === minute) {
      const { key } = last;
      if (key[1] === project && key[2] === provider && key[3] === model) return last.sums;
    }
    let total = this.#minutes.get(minute);
    if (total === undefined) {
      total = new Float64Array(FIGURES.length);
      this.#minutes.set(minute, total);
    }
    const key = [Math.floor(ms / HOUR_MS), project, provider, model] as const;
    const name = key.join(" ");
    let named = this.#named.get(name);
    if (named === undefined) {
      named = { key, sums: new Float64Array(FIGURES.length) };
      this.#named.set(name, named);
    }
    const sums = new RollupSums(total, named.sums);
    this.#last = { minute, key, sums };
    return sums;
  }
  write(): void {
    for (const [minute, sums] of this.#minutes) {
      this.#minutely.run(minute, ...sums);
      this.#hourlyTotal.run(Math.floor(minute / 60), ...sums);
      this.#dailyTotal.run(Math.floor(minute / 1440), ...sums);
    }
    for (const { key, sums } of this.#named.values()) {
      const [hour, ...names] = key;
      this.#hourly.run(hour, ...names, ...sums);
      this.#daily.run(Math.floor(hour / 24), ...names, ...sums);
    }
    this.savings.write();
    this.forget();
  }
  forget(): void {
    this.savings.forget();
    this.#minutes.clear();
    this.#named.clear();
    this.#last = undefined;
  }
}

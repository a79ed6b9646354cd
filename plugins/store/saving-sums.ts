import type { DatabaseSync, StatementSync } from "node:sqlite";

const HOUR_MS = 3_600_000;
const HOURS_A_DAY = 24;
const COLUMNS = "at, project, plugin, kind, requests, tokens, saved, lost";

/** Sums of what plugins saved, within a transaction that the caller holds: gathered, and written before it commits. */
export class SavingSums {
  readonly #sums = new Map<string, [key: readonly number[], sums: number[]]>();
  readonly #hourly: StatementSync;
  readonly #daily: StatementSync;

  constructor(db: DatabaseSync) {
    const upsert = (table: string): StatementSync =>
      db.prepare(
        `INSERT INTO ${table} (${COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (at, project, plugin, kind) DO UPDATE SET requests = requests + excluded.requests,
         tokens = tokens + excluded.tokens, saved = saved + excluded.saved, lost = lost + excluded.lost`,
      );
    this.#hourly = upsert("saving_hourly");
    this.#daily = upsert("saving_daily");
  }

  /** A saving of an exchange that began at `ms`. `nanoUsd` is negative for a loss, and 0 where it is not known. */
  add(
    ms: number,
    [project, plugin, kind]: readonly [number, number, number],
    tokens: number,
    nanoUsd: number,
  ): void {
    const key = [Math.floor(ms / HOUR_MS), project, plugin, kind];
    const name = key.join(" ");
    let found = this.#sums.get(name);
    if (found === undefined) {
      found = [key, [0, 0, 0, 0]];
      this.#sums.set(name, found);
    }
    const [, sums] = found;
    sums[0]!++;
    sums[1]! += tokens;
    sums[nanoUsd < 0 ? 3 : 2]! += Math.abs(nanoUsd);
  }
  write(): void {
    for (const [key, sums] of this.#sums.values()) {
      const [hour, ...names] = key;
      this.#hourly.run(hour!, ...names, ...sums);
      this.#daily.run(Math.floor(hour! / HOURS_A_DAY), ...names, ...sums);
    }
    this.forget();
  }
  forget(): void {
    this.#sums.clear();
  }
}

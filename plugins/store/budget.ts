import { rmSync } from "node:fs";
import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { BudgetWindow, LedgerBegin } from "@tokenman/plugin-sdk";
import { TEXT_KINDS, type TextKind } from "./codes.ts";
import { readDetail } from "./detail.ts";
import { keyOf, readJournal, type WindowKey } from "./journal-lines.ts";
import type { AllowanceAnswer, AllowanceAsk, WindowAmount } from "./messages.ts";
import { HOUR_MS, type Rollup } from "./rollup.ts";
import { keyAt } from "./time-key.ts";

/** An allowance is so many times what is asked for, where no more than that share of what is left is taken by it. */
const EAGER_TIMES = 1_024;
const EAGER_SHARE = 1 / 8;

/**
 * What is used of windows: spent, reserved, and allowed to processes, which give it away (reserver.ts). Within a
 * transaction that the caller holds.
 */
export class Budget {
  readonly #db: DatabaseSync;
  readonly #file: string;
  readonly #rollup: Rollup;
  readonly #window: StatementSync;
  readonly #open: StatementSync;
  readonly #spend: StatementSync;
  readonly #leased: StatementSync;
  readonly #lease: StatementSync;
  readonly #find: StatementSync;
  readonly #settle: StatementSync;
  /** Of holders that left in this transaction. */
  #gone: string[] = [];

  constructor(db: DatabaseSync, file: string, rollup: Rollup) {
    this.#db = db;
    this.#file = file;
    this.#rollup = rollup;
    this.#window = db.prepare("SELECT used FROM budget_window WHERE scope = ? AND period = ? AND start = ?");
    this.#open = db.prepare(
      "INSERT INTO budget_window (scope, period, start, until, used) VALUES (?, ?, ?, ?, ?)",
    );
    this.#spend = db.prepare(
      "UPDATE budget_window SET used = max(0, used + ?) WHERE scope = ? AND period = ? AND start = ?",
    );
    this.#leased = db.prepare(
      "SELECT nano_usd FROM lease WHERE holder = ? AND scope = ? AND period = ? AND start = ?",
    );
    this.#lease = db.prepare(
      `INSERT INTO lease (holder, scope, period, start, nano_usd) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT DO UPDATE SET nano_usd = nano_usd + excluded.nano_usd`,
    );
    this.#find = db.prepare("SELECT nano_usd, spent, windows FROM reservation WHERE id = ?");
    this.#settle = db.prepare("UPDATE reservation SET spent = ?, settled_at = ? WHERE id = ?");
  }

  /** Gives a process room in windows: what it wants, and more while much is left, but never more than is left. */
  allow(
    holder: string,
    boot: number,
    journal: number,
    asks: readonly AllowanceAsk[],
  ): readonly AllowanceAnswer[] {
    this.#db
      .prepare("INSERT INTO holder (id, boot, journal) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
      .run(holder, boot, journal);
    return asks.map(({ window, leased, want }) => {
      const { scope, period, from, limitNanoUsd } = window;
      let used = this.#usedIn(window);
      const known = Number(this.#leased.get(holder, scope, period, from)?.["nano_usd"] ?? 0);
      // After a damaged database was set aside, the new one learns what is held.
      const missing = Math.max(0, leased - known);
      used += missing;
      const left = Math.max(0, limitNanoUsd - used);
      const eager = Math.floor(Math.min(want * EAGER_TIMES, left * EAGER_SHARE));
      const granted = Math.min(left, Math.max(0, want, eager));
      if (missing + granted > 0) {
        this.#spend.run(missing + granted, scope, period, from);
        this.#lease.run(holder, scope, period, from, missing + granted);
      }
      return { used: used + granted, granted };
    });
  }
  /** What a process has spent of its allowance before that file of its journal is no part of it any more. Idempotent. */
  fold(holder: string, journal: number, spent: readonly WindowAmount[]): void {
    const { changes } = this.#db
      .prepare("UPDATE holder SET journal = ? WHERE id = ? AND journal < ?")
      .run(journal, holder, journal);
    // Told before; or a database that was begun anew does not know what it was allowed.
    if (Number(changes) === 0) return;
    for (const { scope, period, from, nanoUsd } of spent)
      if (nanoUsd !== 0) this.#lease.run(holder, scope, period, from, -nanoUsd);
  }

  /** All but `own`. */
  holders(own: string | undefined): readonly Holder[] {
    return this.#db
      .prepare("SELECT id, boot, journal FROM holder WHERE id IS NOT ?")
      .all(own ?? null) as unknown as readonly Holder[];
  }
  /**
   * Ends a holder by its journal: what it spent is spent, what it had reserved stays so, and what is left of its allowance
   * is given back; all of it is spent where the journal is lost. Returns how exchanges began that reserved something.
   */
  leave({ id, journal }: Pick<Holder, "id" | "journal">): readonly LedgerBegin[] {
    const content = readJournal(this.#file, id, journal);
    if (content !== undefined) {
      const change = new Map<string, WindowAmount>();
      const add = ({ scope, period, from }: WindowKey, nanoUsd: number): void => {
        const key = keyOf({ scope, period, from });
        change.set(key, { scope, period, from, nanoUsd: (change.get(key)?.nanoUsd ?? 0) + nanoUsd });
      };
      const leases = this.#db
        .prepare('SELECT scope, period, start AS "from", nano_usd FROM lease WHERE holder = ?')
        .all(id) as unknown as readonly (WindowKey & { readonly nano_usd: number })[];
      for (const lease of leases) add(lease, -lease.nano_usd);
      const keep = this.#db.prepare(
        `INSERT INTO reservation (id, exchange, at, nano_usd, windows, until) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT DO NOTHING`,
      );
      for (const { id, exchangeId, at, nanoUsd, windows, spentNanoUsd } of content.holds) {
        for (const window of windows) add(window, spentNanoUsd ?? nanoUsd);
        if (spentNanoUsd !== undefined) continue;
        const until = Math.max(at, ...windows.map(({ to }) => to));
        keep.run(id, exchangeId, at, nanoUsd, JSON.stringify(windows), until);
      }
      for (const { scope, period, from, nanoUsd } of change.values())
        if (nanoUsd !== 0) this.#spend.run(nanoUsd, scope, period, from);
      this.#gone.push(...content.files);
    }
    this.#db.prepare("DELETE FROM lease WHERE holder = ?").run(id);
    this.#db.prepare("DELETE FROM holder WHERE id = ?").run(id);
    return content?.begins ?? [];
  }
  /** Puts what was spent in the place of what a process had reserved when it ended. Once. */
  settle(id: string, spentNanoUsd: number, at: number): void {
    const reservation = this.#find.get(id);
    if (reservation === undefined || reservation["spent"] !== null) return;
    const spent = Math.max(0, Math.round(spentNanoUsd));
    const change = spent - Number(reservation["nano_usd"]);
    for (const { scope, period, from } of JSON.parse(String(reservation["windows"])) as WindowKey[])
      this.#spend.run(change, scope, period, from);
    this.#settle.run(spent, at, id);
  }

  used(windows: readonly BudgetWindow[]): number[] {
    return windows.map((window) => this.#usedIn(window));
  }

  /** After the commit. */
  committed(): void {
    for (const file of this.#gone) {
      try {
        rmSync(file, { force: true });
      } catch {
        // Nobody reads it any more.
      }
    }
    this.#gone = [];
  }
  /** After a rollback. */
  forget(): void {
    this.#gone = [];
  }

  #usedIn({ scope, period, from, to }: BudgetWindow): number {
    const known = this.#window.get(scope, period, from);
    if (known !== undefined) return Number(known["used"]);
    const past = this.#past(scope, from, to);
    this.#open.run(scope, period, from, to, past);
    return past;
  }

  /** What the ledger has of a window that is seen for the first time: a limit counts what came before it was set. */
  #past(scope: string, from: number, to: number): number {
    const colon = scope.indexOf(":");
    const kind = colon < 0 ? scope : scope.slice(0, colon);
    let where = "";
    const values: number[] = [];
    if (kind !== "total") {
      if (!SCOPES.has(kind)) return 0;
      const text = this.#db
        .prepare("SELECT id FROM text WHERE kind = ? AND value = ?")
        .get(TEXT_KINDS.indexOf(kind as TextKind), scope.slice(colon + 1));
      if (text === undefined) return 0;
      where = ` AND ${kind} = ?`;
      values.push(Number(text["id"]));
    }
    // What ended in this very transaction counts, too.
    this.#rollup.write();
    const firstHour = Math.ceil(from / HOUR_MS);
    const lastHour = Math.floor(to / HOUR_MS);
    const table = kind === "total" ? "hourly_total" : "hourly";
    const hours = this.#db
      .prepare(`SELECT total(cost) AS cost FROM ${table} WHERE at >= ? AND at < ?${where}`)
      .get(firstHour, lastHour, ...values);
    // Windows of time zones that are half an hour off begin and end within an hour.
    const edge = (since: number, until: number): number => {
      if (since >= until) return 0;
      if (kind === "provider" || kind === "model")
        return attemptsCost(this.#db, kind, values[0]!, keyAt(since), keyAt(until));
      const row = this.#db
        .prepare(`SELECT total(cost) AS cost FROM request WHERE id >= ? AND id < ?${where}`)
        .get(keyAt(since), keyAt(until), ...values);
      return Number(row?.["cost"] ?? 0);
    };
    return (
      Number(hours?.["cost"] ?? 0) +
      edge(from, Math.min(firstHour * HOUR_MS, to)) +
      edge(Math.max(lastHour * HOUR_MS, firstHour * HOUR_MS), to)
    );
  }
}

/** What the attempts at one provider, or with one model, cost of the exchanges whose keys are in the range. */
function attemptsCost(
  db: DatabaseSync,
  kind: "provider" | "model",
  name: number,
  from: number,
  below: number,
): number {
  const older = db
    .prepare(`SELECT total(cost) AS cost FROM attempt WHERE request >= ? AND request < ? AND ${kind} = ?`)
    .get(from, below, name);
  let cost = Number(older?.["cost"] ?? 0);
  const details = db
    .prepare(
      "SELECT detail FROM request WHERE id >= ? AND id < ? AND detail IS NOT NULL AND cost IS NOT NULL",
    )
    .iterate(from, below);
  for (const { detail } of details) {
    for (const attempt of readDetail(detail as Uint8Array)?.attempts ?? [])
      if (attempt[kind] === name) cost += Number(attempt.cost ?? 0);
  }
  return cost;
}

const SCOPES: ReadonlySet<string> = new Set(["project", "provider", "model"]);

/** A process that was allowed something. */
export interface Holder {
  readonly id: string;
  readonly boot: number;
  /** The file from which on its journal counts. */
  readonly journal: number;
}

import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { BudgetWindow, Reservation, ReserveResult } from "@tokenman/plugin-sdk";
import { TEXT_KINDS, type TextKind } from "./codes.ts";
import { readDetail } from "./detail.ts";
import { HOUR_MS, type Rollup } from "./rollup.ts";
import { keyAt } from "./time-key.ts";

/** Answers to refused reservations, so that a repeated one is answered as the first was. */
const REMEMBERED = 10_000;

/** What is reserved and spent in windows. Within a transaction that the caller holds. */
export class Budget {
  readonly #db: DatabaseSync;
  readonly #rollup: Rollup;
  readonly #find: StatementSync;
  readonly #add: StatementSync;
  readonly #window: StatementSync;
  readonly #open: StatementSync;
  readonly #spend: StatementSync;
  readonly #settle: StatementSync;
  readonly #refused = new Map<string, ReserveResult>();

  constructor(db: DatabaseSync, rollup: Rollup) {
    this.#db = db;
    this.#rollup = rollup;
    this.#find = db.prepare("SELECT nano_usd, spent, windows FROM reservation WHERE id = ?");
    this.#add = db.prepare(
      "INSERT INTO reservation (id, exchange, at, nano_usd, windows, until) VALUES (?, ?, ?, ?, ?, ?)",
    );
    this.#window = db.prepare("SELECT used FROM budget_window WHERE scope = ? AND period = ? AND start = ?");
    this.#open = db.prepare(
      "INSERT INTO budget_window (scope, period, start, until, used) VALUES (?, ?, ?, ?, ?)",
    );
    this.#spend = db.prepare(
      "UPDATE budget_window SET used = max(0, used + ?) WHERE scope = ? AND period = ? AND start = ?",
    );
    this.#settle = db.prepare("UPDATE reservation SET spent = ?, settled_at = ? WHERE id = ?");
  }

  /** All windows or none: nothing is reserved where one of them would be over its limit. */
  reserve({ id, exchangeId, at, nanoUsd, windows }: Reservation): ReserveResult {
    const earlier = this.#find.get(id);
    if (earlier !== undefined) return { ok: true, usedNanoUsd: heldOf(earlier).map(({ used }) => used) };
    const refused = this.#refused.get(id);
    if (refused !== undefined) return refused;
    const amount = Math.max(0, Math.ceil(nanoUsd));
    const used = windows.map((window) => this.#usedIn(window));
    for (const [index, window] of windows.entries()) {
      if (used[index]! + amount <= window.limitNanoUsd) continue;
      const answer: ReserveResult = { ok: false, window, usedNanoUsd: used[index]! };
      if (this.#refused.size >= REMEMBERED) this.#refused.delete(this.#refused.keys().next().value!);
      this.#refused.set(id, answer);
      return answer;
    }
    const held: Held[] = windows.map(({ scope, period, from }, index) => ({
      scope,
      period,
      from,
      used: used[index]! + amount,
    }));
    for (const window of held) this.#spend.run(amount, window.scope, window.period, window.from);
    const until = Math.max(at, ...windows.map(({ to }) => to));
    this.#add.run(id, exchangeId, at, amount, JSON.stringify(held), until);
    return { ok: true, usedNanoUsd: held.map((window) => window.used) };
  }

  /** Puts what was spent in the place of what was reserved. Once. */
  settle(id: string, spentNanoUsd: number, at: number): void {
    const reservation = this.#find.get(id);
    if (reservation === undefined || reservation["spent"] !== null) return;
    const spent = Math.max(0, Math.round(spentNanoUsd));
    const change = spent - Number(reservation["nano_usd"]);
    for (const { scope, period, from } of heldOf(reservation)) this.#spend.run(change, scope, period, from);
    this.#settle.run(spent, at, id);
  }

  used(windows: readonly BudgetWindow[]): number[] {
    return windows.map((window) => this.#usedIn(window));
  }
  /** After a rollback: answers that were never given. */
  forget(): void {
    this.#refused.clear();
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

interface Held {
  readonly scope: string;
  readonly period: string;
  readonly from: number;
  /** With this reservation. */
  readonly used: number;
}

function heldOf(reservation: Readonly<Record<string, unknown>>): Held[] {
  return JSON.parse(String(reservation["windows"])) as Held[];
}

import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { BudgetWindow } from "@tokenman/plugin-sdk";
import { TEXT_KINDS, type TextKind } from "./codes.ts";
import { readDetail } from "./detail.ts";
import type { Dictionary } from "./dictionary.ts";
import { GRANTED, HOLD, type HoldAnswers, type HoldBatch, REFUSED, type SettledBatch } from "./hold-cells.ts";
import type { ReceivedNames } from "./names.ts";
import { type Granted, OpenHolds, type WindowKey } from "./open-holds.ts";
import { HOUR_MS, type Rollup } from "./rollup.ts";
import { BEGIN, BEGIN_NAMES } from "./row-cells.ts";
import { keyAt } from "./time-key.ts";

/** Answers to refused reservations, so that a repeated one is answered as the first was. */
const REMEMBERED = 10_000;

/** A window, as it is in this transaction. */
interface Used extends WindowKey {
  used: number;
  isChanged: boolean;
}

/** Reservations as the writer reads them. */
export interface ReceivedHolds extends Omit<HoldBatch, "names"> {
  readonly names: ReceivedNames;
}

/** What is reserved and spent in windows. Within a transaction that the caller holds. */
export class Budget {
  readonly #db: DatabaseSync;
  readonly #rollup: Rollup;
  readonly #texts: Dictionary;
  readonly #holds: OpenHolds;
  readonly #window: StatementSync;
  readonly #open: StatementSync;
  readonly #write: StatementSync;
  /** What this transaction has looked at: each window is read and written once, however many it counts. */
  readonly #windows = new Map<string, Used>();
  readonly #refused = new Map<string, readonly [place: number, used: number]>();

  constructor(db: DatabaseSync, rollup: Rollup, texts: Dictionary, boot: number) {
    this.#db = db;
    this.#rollup = rollup;
    this.#texts = texts;
    this.#holds = new OpenHolds(db, boot);
    this.#window = db.prepare("SELECT used FROM budget_window WHERE scope = ? AND period = ? AND start = ?");
    this.#open = db.prepare(
      "INSERT INTO budget_window (scope, period, start, until, used) VALUES (?, ?, ?, ?, ?)",
    );
    this.#write = db.prepare(
      "UPDATE budget_window SET used = ? WHERE scope = ? AND period = ? AND start = ?",
    );
  }

  /** Each in all of its windows or in none: nothing is reserved where one of them would be over its limit. */
  reserve({ ids, sets, cells, names }: ReceivedHolds): HoldAnswers {
    const answers: number[] = [];
    const granted: Granted[] = [];
    const batch = new Set<string>();
    const known = sets.map((windows) => ({
      windows,
      used: windows.map((window) => this.#usedIn(window)),
      until: Math.max(0, ...windows.map(({ to }) => to)),
    }));
    for (const [index, id] of ids.entries()) {
      const at = index * HOLD.LENGTH;
      const { windows, used, until } = known[cells[at + HOLD.SET]!]!;
      const earlier = this.#holds.find(id) ?? granted.find((each) => batch.has(id) && each.id === id);
      if (earlier !== undefined) {
        answers.push(GRANTED, ...earlier.used);
        continue;
      }
      const nanoUsd = Math.max(0, Math.ceil(cells[at + HOLD.AMOUNT]!));
      const full = this.#refused.get(id) ?? fullOf(windows, used, nanoUsd);
      if (full !== undefined) {
        this.#remember(id, full);
        answers.push(REFUSED, ...full);
        continue;
      }
      const after: number[] = [];
      for (const window of used) {
        window.used += nanoUsd;
        window.isChanged = true;
        after.push(window.used);
      }
      answers.push(GRANTED, ...after);
      batch.add(id);
      granted.push({
        id,
        nanoUsd,
        windows,
        used: after,
        until: until || cells[at + HOLD.AT]!,
        begin: this.#beginOf(cells, at + HOLD.BEGIN, names),
      });
    }
    this.#holds.add(granted);
    return answers;
  }

  /** Puts what was spent in the place of what was reserved. Once. */
  settle({ ids, spent }: Pick<SettledBatch, "ids" | "spent">): void {
    for (const [index, id] of ids.entries()) {
      const hold = this.#holds.find(id) ?? this.#holds.search(id);
      if (hold === undefined || !this.#holds.settle(hold)) continue;
      const change = Math.max(0, Math.round(spent[index]!)) - hold.nanoUsd;
      for (const key of hold.windows) {
        const window = this.#known(key);
        if (window === undefined) continue;
        window.used = Math.max(0, window.used + change);
        window.isChanged = true;
      }
    }
  }

  used(windows: readonly BudgetWindow[]): number[] {
    return windows.map((window) => this.#usedIn(window).used);
  }
  /** Before the commit. */
  write(): void {
    for (const { scope, period, from, used, isChanged } of this.#windows.values())
      if (isChanged) this.#write.run(used, scope, period, from);
    this.#windows.clear();
    this.#holds.write();
  }
  committed(): void {
    this.#holds.committed();
  }
  /** After a rollback: answers that were never given. */
  forget(): void {
    this.#windows.clear();
    this.#refused.clear();
    this.#holds.forget();
  }

  #remember(id: string, full: readonly [number, number]): void {
    if (this.#refused.size >= REMEMBERED) this.#refused.delete(this.#refused.keys().next().value!);
    this.#refused.set(id, full);
  }
  #beginOf(cells: Float64Array, at: number, names: ReceivedNames): Float64Array | undefined {
    if (Number.isNaN(cells[at + BEGIN.PROJECT]) || Number.isNaN(cells[at + BEGIN.ID])) return undefined;
    const begin = cells.slice(at, at + BEGIN.LENGTH);
    for (const [place] of BEGIN_NAMES) begin[place] = names.id(begin[place]!, this.#texts) ?? Number.NaN;
    return begin;
  }

  #known({ scope, period, from }: WindowKey): Used | undefined {
    const key = `${from} ${period} ${scope}`;
    const known = this.#windows.get(key);
    if (known !== undefined) return known;
    const found = this.#window.get(scope, period, from);
    if (found === undefined) return undefined;
    const used = { scope, period, from, used: Number(found["used"]), isChanged: false };
    this.#windows.set(key, used);
    return used;
  }
  #usedIn(window: BudgetWindow): Used {
    const known = this.#known(window);
    if (known !== undefined) return known;
    const { scope, period, from, to } = window;
    this.#open.run(scope, period, from, to, this.#past(scope, from, to));
    return this.#known(window)!;
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

/** The first window that has no room, and what is used of it. */
function fullOf(
  windows: readonly BudgetWindow[],
  used: readonly Used[],
  nanoUsd: number,
): readonly [number, number] | undefined {
  for (const [place, { limitNanoUsd }] of windows.entries())
    if (used[place]!.used + nanoUsd > limitNanoUsd) return [place, used[place]!.used];
  return undefined;
}

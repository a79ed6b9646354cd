import { readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { BudgetWindow, LedgerBegin, Reservation } from "@tokenman/plugin-sdk";
import { journalFile } from "./journal.ts";

/** A window, as the database tells them apart. */
export interface WindowKey {
  readonly scope: string;
  readonly period: string;
  readonly from: number;
}
export function keyOf({ scope, period, from }: WindowKey): string {
  return `${from} ${period} ${scope}`;
}

/** A journal is lines of JSON, each of them an array that begins with what it is. A line that is cut off is none. */
type Line =
  | readonly [
      "hold",
      id: string,
      nanoUsd: number,
      at: number,
      exchangeId: string,
      windows: readonly (readonly [scope: string, period: string, from: number, to: number])[],
      begin: Row | null,
      beganAt?: number,
    ]
  | readonly ["settle", id: string, spentNanoUsd: number];

/** `windows` is {@link windowsText}. */
export function holdLine(
  { id, exchangeId, at }: Omit<Reservation, "nanoUsd" | "windows">,
  nanoUsd: number,
  windows: string,
  begin: LedgerBegin | undefined,
): string {
  const row = begin === undefined ? "null" : `${rowText(begin)},${begin.at}`;
  return `["hold",${JSON.stringify(id)},${nanoUsd},${at},${JSON.stringify(exchangeId)},${windows},${row}]\n`;
}

/** What tells one exchange's row from the next one's is apart, so that the rest need not be written anew. */
type Row = Omit<LedgerBegin, "exchangeId" | "at">;
let last: LedgerBegin | undefined;
let lastText = "";

function rowText(begin: LedgerBegin): string {
  const { project, session, client, method, path, dialect, model, stream } = begin;
  if (
    last === undefined ||
    session !== last.session ||
    model !== last.model ||
    stream !== last.stream ||
    project !== last.project ||
    client !== last.client ||
    method !== last.method ||
    path !== last.path ||
    dialect !== last.dialect
  ) {
    last = begin;
    lastText = JSON.stringify({
      project,
      session,
      client,
      method,
      path,
      dialect,
      model,
      stream,
    } satisfies Row);
  }
  return lastText;
}

export function windowsText(windows: readonly BudgetWindow[]): string {
  return JSON.stringify(windows.map(({ scope, period, from, to }) => [scope, period, from, to]));
}
export function settleLine(id: string, spentNanoUsd: number): string {
  return `["settle",${JSON.stringify(id)},${spentNanoUsd}]\n`;
}

/** A reservation that a journal tells of. */
export interface JournalHold {
  readonly id: string;
  readonly exchangeId: string;
  readonly at: number;
  readonly nanoUsd: number;
  readonly windows: readonly (WindowKey & { readonly to: number })[];
  /** Undefined while it is open. */
  spentNanoUsd: number | undefined;
}

/** What the files of a journal tell together. */
export interface JournalContent {
  readonly holds: readonly JournalHold[];
  /** How exchanges began. */
  readonly begins: readonly LedgerBegin[];
  readonly files: readonly string[];
}

/**
 * Reads what a holder has written from its file `first` on, and names all files that it left. Undefined where that file is
 * missing: then nobody knows. A reservation may be in two files, which is one reservation.
 */
export function readJournal(database: string, holder: string, first: number): JournalContent | undefined {
  const prefix = basename(journalFile(database, holder, 0)).slice(0, -1);
  const numbers = readdirSync(dirname(database))
    .filter((name) => name.startsWith(prefix))
    .map((name) => Number(name.slice(prefix.length)))
    .filter(Number.isInteger)
    .sort((left, right) => left - right);
  if (!numbers.includes(first)) return undefined;
  const holds = new Map<string, JournalHold>();
  const begins: LedgerBegin[] = [];
  for (const number of numbers) {
    if (number < first) continue;
    for (const text of readFileSync(journalFile(database, holder, number), "utf8").split("\n")) {
      const line = parsed(text);
      if (line === undefined) continue;
      if (line[0] === "settle") {
        const hold = holds.get(line[1]);
        if (hold !== undefined) hold.spentNanoUsd ??= line[2];
      } else {
        const [, id, nanoUsd, at, exchangeId, spans, row, beganAt = at] = line;
        if (row !== null) begins.push({ ...row, exchangeId, at: beganAt });
        if (holds.has(id)) continue;
        const windows = spans.map(([scope, period, from, to]) => ({ scope, period, from, to }));
        holds.set(id, { id, exchangeId, at, nanoUsd, windows, spentNanoUsd: undefined });
      }
    }
  }
  const folder = dirname(database);
  return {
    holds: [...holds.values()],
    begins,
    files: numbers.map((number) => join(folder, `${prefix}${number}`)),
  };
}

function parsed(text: string): Line | undefined {
  if (!text.endsWith("]")) return undefined;
  try {
    return JSON.parse(text) as Line;
  } catch {
    return undefined;
  }
}

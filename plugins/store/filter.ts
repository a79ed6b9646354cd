import type { DatabaseSync } from "node:sqlite";
import { type LedgerFilter, TokenmanError } from "@tokenman/plugin-sdk";
import { OUTCOMES, TEXT_KINDS, type TextKind } from "./codes.ts";
import { type WalkedRow, walkHours } from "./hours.ts";
import { keyAt } from "./time-key.ts";

const MAX_TEXT = 500;
const MAX_WORDS = 16;

/** The columns that conditions look at, in the order in which a walk reads them after `id`. */
export const WALKED = ["project", "session", "model", "sent_model", "provider", "status", "outcome"] as const;
type Column = (typeof WALKED)[number];

/**
 * A filter made ready: one condition has an index to walk along, or rollups that tell which hours to look at, from the
 * newest exchange to the oldest; the others are checked on each row. So the rows read for a page can be counted,
 * whatever the filter.
 */
export interface Walk {
  /** Walked together, in the order of their keys. */
  readonly sources: readonly WalkSource[];
  readonly matches: (row: WalkedRow) => boolean;
}

/** {@link WALKED} behind `id`, newest first, of the exchanges whose keys are below the given one. */
export type WalkSource = (below: number) => Iterator<WalkedRow, undefined>;

const ALL: readonly (readonly [condition: string, value: number])[] = [["id > ?", 0]];

/** Undefined where nothing can match: a name that the ledger never saw. Throws TM_LEDGER_QUERY. */
export function walkOf(db: DatabaseSync, filter: LedgerFilter): Walk | undefined {
  const checks: ((row: WalkedRow) => boolean)[] = [];
  /** The index to walk along: the last condition that has one, as they get more selective. */
  let along: readonly (readonly [condition: string, value: number])[] = ALL;

  const sought: { provider: number | undefined; model: number | undefined } = {
    provider: undefined,
    model: undefined,
  };

  for (const kind of ["provider", "model", "project", "session"] as const) {
    const name = filter[kind];
    if (name === undefined) continue;
    const id = textId(db, kind, name);
    if (id === undefined) return undefined;
    const columns = kind === "model" ? (["model", "sent_model"] as const) : [kind];
    const places = columns.map(place);
    checks.push((row) => places.some((at) => row[at] === id));
    if (kind === "provider" || kind === "model") sought[kind] = id;
    else along = [[`${kind} = ?`, id]];
  }
  const { status, outcome, text } = filter;
  if (outcome !== undefined) {
    const code = OUTCOMES.indexOf(outcome);
    if (code < 0) throw question(`outcome is one of ${OUTCOMES.join(", ")}`);
    const at = place("outcome");
    checks.push((row) => row[at] === code);
    if (code > 1) along = [["outcome > 1 AND outcome = ?", code]];
  }
  if (status !== undefined) {
    if (!Number.isInteger(status) || status < 1 || status > 599 || (status > 5 && status < 100))
      throw question("status is a number from 100 to 599, or 1 to 5 for a class of them");
    const at = place("status");
    checks.push(
      status > 5 ? (row) => row[at] === status : (row) => Math.floor((row[at] ?? 0) / 100) === status,
    );
    if (status >= 400) along = [["status >= 400 AND status = ?", status]];
    else if (status === 4 || status === 5)
      along = statusesOf(db, status).map((one) => ["status >= 400 AND status = ?", one]);
  }
  const { from, to } = filter;
  if (from !== undefined) checkMs("from", from);
  if (to !== undefined) checkMs("to", to);
  if (from !== undefined && to !== undefined && from >= to) throw question("from is before to");
  const lowest = from === undefined ? 0 : keyAt(from);
  const highest = to === undefined ? Number.MAX_SAFE_INTEGER : keyAt(to);
  const matches = (row: WalkedRow): boolean => checks.every((check) => check(row));

  const columns = WALKED.map((column) => `request.${column}`).join(", ");
  if (text !== undefined) {
    const sql = `SELECT request.id, ${columns} FROM failure_search JOIN request ON request.id = failure_search.rowid
      WHERE failure_search MATCH ? AND failure_search.rowid >= ? AND failure_search.rowid < ? AND failure_search.rowid < ?
      ORDER BY failure_search.rowid DESC`;
    return { sources: [indexed(db, sql, [searchOf(text), lowest, highest])], matches };
  }
  const alongIndex = ([condition, value]: readonly [condition: string, value: number]): WalkSource =>
    indexed(
      db,
      `SELECT id, ${columns} FROM request WHERE ${condition} AND id >= ? AND id < ? AND id < ? ORDER BY id DESC`,
      [value, lowest, highest],
    );
  const { provider, model } = sought;
  if (along !== ALL || (provider === undefined && model === undefined))
    return { sources: along.map(alongIndex), matches };
  const byHour: WalkSource = (below) =>
    walkHours(db, sought, columns, place("sent_model"), lowest, Math.min(below, highest));
  // One that was sent under another name is found by either of the two.
  const renamed =
    model === undefined
      ? []
      : ["sent_model IS NOT NULL AND model = ?", "sent_model = ?"].map((condition) =>
          alongIndex([condition, model]),
        );
  return { sources: [byHour, ...renamed], matches };
}

function indexed(db: DatabaseSync, sql: string, values: readonly (string | number)[]): WalkSource {
  return (below) => {
    const statement = db.prepare(sql);
    statement.setReturnArrays(true);
    return statement.iterate(...values, below) as unknown as Iterator<WalkedRow, undefined>;
  };
}

/** The statuses of a class that the ledger has: a hundred look-ups, which is less than a walk through their index. */
function statusesOf(db: DatabaseSync, status: number): number[] {
  const find = db.prepare("SELECT 1 FROM request WHERE status >= 400 AND status = ? LIMIT 1");
  return Array.from({ length: 100 }, (_, index) => status * 100 + index).filter(
    (each) => find.get(each) !== undefined,
  );
}

export function textId(db: DatabaseSync, kind: TextKind, value: string): number | undefined {
  const row = db
    .prepare("SELECT id FROM text WHERE kind = ? AND value = ?")
    .get(TEXT_KINDS.indexOf(kind), value);
  return row === undefined ? undefined : Number(row["id"]);
}

export function checkMs(name: string, ms: number): void {
  if (!Number.isFinite(ms) || ms < 0 || ms > 8_640_000_000_000)
    throw question(`${name} is milliseconds since 1970`);
}

export function question(message: string): TokenmanError {
  return new TokenmanError("TM_LEDGER_QUERY", message);
}

function place(column: Column): number {
  return WALKED.indexOf(column) + 1;
}

/** All the words, the last one perhaps not finished. Quoted, so that nothing in them is query syntax. */
function searchOf(text: string): string {
  const words = text
    .slice(0, MAX_TEXT)
    .replaceAll("\0", " ")
    .split(/[^\p{L}\p{N}]+/u)
    .filter((word) => word !== "");
  if (words.length === 0) throw question("text has at least one word");
  return `${words
    .slice(0, MAX_WORDS)
    .map((word) => `"${word}"`)
    .join(" ")}*`;
}

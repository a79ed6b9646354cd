import type { DatabaseSync } from "node:sqlite";
import type { LedgerFilter, LedgerPage } from "@tokenman/plugin-sdk";
import { question, type Walk, walkOf } from "./filter.ts";
import type { WalkedRow } from "./hours.ts";
import { Summaries } from "./summary.ts";

const DEFAULT_LIMIT = 50;
const MAX_LIMIT = 500;
/** What one page may look at, whichever comes first. */
const MAX_WALKED = 20_000;
const MAX_MS = 20;
const CHECK_EVERY = 256;

/** A cursor is the key above the next row, in base 36. */
const CURSOR = /^[0-9a-z]{1,11}$/;

/** One page, newest first. Throws TM_LEDGER_QUERY. */
export function page(
  db: DatabaseSync,
  filter: LedgerFilter,
  options: { readonly cursor?: string; readonly limit?: number } = {},
): LedgerPage {
  const { cursor, limit = DEFAULT_LIMIT } = options;
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_LIMIT)
    throw question(`limit is a whole number from 1 to ${MAX_LIMIT}`);
  const below = cursor === undefined ? Number.MAX_SAFE_INTEGER : keyOf(cursor);
  const walk = walkOf(db, filter);
  if (walk === undefined) return { rows: [], next: undefined };
  const ids: number[] = [];
  const began = performance.now();
  let walked = 0;
  let next: number | undefined;
  for (const row of walkAlong(walk, below)) {
    const id = Number(row[0]);
    if (walk.matches(row)) ids.push(id);
    walked++;
    const isLate = walked >= MAX_WALKED || (walked % CHECK_EVERY === 0 && performance.now() - began > MAX_MS);
    if (ids.length < limit && !isLate) continue;
    next = id;
    break;
  }
  const summaries = new Summaries(db);
  const rows = ids.flatMap((id) => summaries.of(id)?.summary ?? []);
  return { rows, next: next?.toString(36) };
}

/** The rows of all sources, in the order of their keys. */
function* walkAlong({ sources }: Walk, below: number): Generator<WalkedRow> {
  const heads = sources.map((source) => {
    const rows = source(below);
    return { rows, row: rows.next().value ?? undefined };
  });
  try {
    for (;;) {
      let newest: (typeof heads)[number] | undefined;
      for (const head of heads) {
        if (head.row !== undefined && (newest?.row === undefined || comesBefore(head.row, newest.row)))
          newest = head;
      }
      if (newest?.row === undefined) return;
      yield newest.row;
      newest.row = newest.rows.next().value ?? undefined;
    }
  } finally {
    // A statement in the middle of its rows keeps what it reads from: the thread would see nothing newer for ever.
    for (const { rows } of heads) rows.return?.();
  }
}

/** The newer one; of a row, and a key that says that one source is past it, the row. */
function comesBefore(one: WalkedRow, other: WalkedRow): boolean {
  return one[0]! > other[0]! || (one[0] === other[0] && other.length === 1);
}

function keyOf(cursor: string): number {
  const key = CURSOR.test(cursor) ? Number.parseInt(cursor, 36) : Number.NaN;
  if (!Number.isSafeInteger(key)) throw question("cursor is not one that a page gave");
  return key;
}

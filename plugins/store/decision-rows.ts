import type { DatabaseSync, StatementSync } from "node:sqlite";

/** Days that a decision stays after its last use. */
const DAYS = 30;
const DAY_MS = 86_400_000;
/** A decision takes about 150 bytes. */
const MAX_ROWS = 500_000;
const BATCH = 1_000;
/** What is in memory from the start on: the last used, up to so many and so many characters. */
const RECALLED = 20_000;
const RECALLED_CHARACTERS = 4_000_000;

/** Book, key, value, and when it was last used. */
export type DecisionRow = readonly [book: string, key: string, value: string, at: number];

export interface Recalled {
  /** The last used last. */
  readonly rows: readonly DecisionRow[];
  /** There are no others. */
  readonly isAll: boolean;
}

/** What compressors decided. Within a transaction that the caller holds. */
export class DecisionRows {
  readonly #put: StatementSync;
  readonly #find: StatementSync;
  readonly #newest: StatementSync;

  constructor(db: DatabaseSync) {
    this.#put = db.prepare(
      "INSERT INTO decision (book, key, value, at) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value, at = max(at, excluded.at)",
    );
    this.#find = db.prepare("SELECT value FROM decision WHERE book = ? AND key = ?");
    this.#newest = db.prepare("SELECT book, key, value, at FROM decision ORDER BY at DESC");
  }

  put([book, key, value, at]: DecisionRow): void {
    this.#put.run(book, key, value, at);
  }
  find(book: string, key: string): string | undefined {
    const row = this.#find.get(book, key);
    return row === undefined ? undefined : String(row["value"]);
  }
  recall(): Recalled {
    const rows: DecisionRow[] = [];
    let characters = 0;
    for (const row of this.#newest.iterate()) {
      const value = String(row["value"]);
      characters += value.length;
      if (rows.length === RECALLED || characters > RECALLED_CHARACTERS)
        return { rows: rows.reverse(), isAll: false };
      rows.push([String(row["book"]), String(row["key"]), value, Number(row["at"])]);
    }
    return { rows: rows.reverse(), isAll: true };
  }
}

/** Removes a batch of what was not used for long, or is too much. True: there may be more. */
export function pruneDecisions(db: DatabaseSync, now: number): boolean {
  const remove = db.prepare(
    "DELETE FROM decision WHERE rowid IN (SELECT rowid FROM decision WHERE at < ? ORDER BY at LIMIT ?)",
  );
  const gone = Number(remove.run(now - DAYS * DAY_MS, BATCH).changes);
  if (gone === BATCH) return true;
  const over = Number(db.prepare("SELECT count(*) AS n FROM decision").get()?.["n"]) - MAX_ROWS;
  return over > 0 && Number(remove.run(Number.MAX_SAFE_INTEGER, Math.min(over, BATCH)).changes) === BATCH;
}

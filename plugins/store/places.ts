import type { DatabaseSync, StatementSync } from "node:sqlite";
import { KEYS_PER_MS, keyOfUuid, msOf, readUuid } from "./time-key.ts";

/** Where an exchange's row is, or would be. */
export interface Place {
  /** The key of its row; undefined where it has none. */
  readonly own: number | undefined;
  /** The key that it gets. */
  readonly free: number;
  /** Its id's 16 bytes, until the next place is asked for. */
  readonly uuid: Uint8Array;
}

/** Words of an id that tell those of one millisecond apart: the first, and a half of the second, are the time. */
const WORDS = 3;

/**
 * Finds rows by their exchange's id. Rows come in the order of time, mostly: of the newest millisecond all are known
 * that a transaction added to it, and for them nothing is looked up.
 */
export class Places {
  readonly #find: StatementSync;
  readonly #last: StatementSync;
  readonly #uuid = Buffer.alloc(16);
  /** The first key of a millisecond; whatever row has it or a later key is known. Undefined: ask the database. */
  #newest: number | undefined;
  /** The ids of those rows, whose keys follow each other. */
  #known: number[] = [];
  /** Of the place that was asked for last, where it is among them. */
  #words: [number, number, number] | undefined;

  constructor(db: DatabaseSync) {
    this.#find = db.prepare(
      `SELECT max(id) AS last, max(CASE WHEN uuid = ? THEN id END) AS own FROM request WHERE id BETWEEN ? AND ?`,
    );
    this.#last = db.prepare("SELECT max(id) AS last FROM request");
  }

  /** The place of the id that stands in these cells. Throws TM_LEDGER_QUERY where it is no UUID. */
  of(cells: Float64Array, at: number): Place {
    const uuid = readUuid(cells, at, this.#uuid);
    const first = keyOfUuid(uuid);
    this.#words = undefined;
    this.#newest ??= this.#afterLast();
    if (first < this.#newest) return this.#lookUp(uuid, first);
    if (first > this.#newest) {
      this.#newest = first;
      this.#known.length = 0;
    }
    const known = this.#known;
    const a = cells[at + 1]!;
    const b = cells[at + 2]!;
    const c = cells[at + 3]!;
    for (let index = 0; index < known.length; index += WORDS) {
      if (known[index] !== a || known[index + 1] !== b || known[index + 2] !== c) continue;
      const own = first + index / WORDS;
      return { own, free: own, uuid };
    }
    const count = known.length / WORDS;
    if (count >= KEYS_PER_MS) return this.#lookUp(uuid, first);
    this.#words = [a, b, c];
    return { own: undefined, free: first + count, uuid };
  }
  /** A row was added in the place that was asked for last. */
  taken(): void {
    if (this.#words !== undefined) this.#known.push(...this.#words);
    this.#words = undefined;
  }
  /** Another transaction begins: the last one may have been rolled back, and another process may have written since. */
  forget(): void {
    this.#newest = undefined;
    this.#known.length = 0;
    this.#words = undefined;
  }

  #lookUp(uuid: Buffer, first: number): Place {
    const { last, own } = this.#find.get(uuid, first, first + KEYS_PER_MS - 1) as unknown as Row;
    const free = last === null ? first : last + 1;
    // A millisecond that is full takes keys of the next one.
    if (free >= first + KEYS_PER_MS) this.forget();
    return { own: own ?? undefined, free, uuid };
  }
  #afterLast(): number {
    const { last } = this.#last.get() as unknown as Pick<Row, "last">;
    this.#known.length = 0;
    return last === null ? 0 : (msOf(last) + 1) * KEYS_PER_MS;
  }
}

/** Among the rows of a millisecond: the last one's key, and that of the exchange itself. */
interface Row {
  readonly last: number | null;
  readonly own: number | null;
}

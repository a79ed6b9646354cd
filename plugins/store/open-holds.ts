import type { DatabaseSync, StatementSync } from "node:sqlite";
import { BEGIN } from "./row-cells.ts";

/** The keys of one process's rows: as many may be open at once. */
const SLOTS = 2 ** 24;
/** So many reservations share a row: it fits a page. */
const PER_ROW = 32;
/** 32-bit numbers of each: its windows, its amount (low, high), the beginning of its exchange's row. */
const WORDS = 3 + BEGIN.LENGTH;
/** What the database calls NULL. */
const NONE = 0xffff_ffff;

/** A window in the database. */
export interface WindowKey {
  readonly scope: string;
  readonly period: string;
  readonly from: number;
}

/** What is granted, and not written yet. */
export interface Granted {
  readonly id: string;
  readonly nanoUsd: number;
  readonly windows: readonly WindowKey[];
  /** What is used of its windows, with it. */
  readonly used: readonly number[];
  /** Milliseconds since the epoch: when the last of its windows ends. */
  readonly until: number;
  /** The beginning of its exchange's row, names being ids of the database; undefined where it is on its way by itself. */
  readonly begin: Float64Array | undefined;
}

/** A reservation that is not settled. */
export type OpenHold = Pick<Granted, "id" | "nanoUsd" | "windows" | "used"> & {
  readonly row: HoldRow;
  readonly index: number;
};

/** Reservations that were made together: a row of `hold`. */
interface HoldRow {
  readonly key: number;
  readonly isOwn: boolean;
  /** A byte for each: 1 where it is settled. */
  readonly settled: Uint8Array;
  left: number;
}

interface StoredRow {
  readonly id: number;
  readonly boot: number;
  readonly windows: string;
  readonly ids: string;
  readonly cells: Uint8Array;
  readonly settled: Uint8Array | null;
}

/**
 * The reservations that are open: in the database, many in a row, so that their commit writes as few pages as can be,
 * which is most of what a reservation costs; and those of this process in memory. Within a transaction that the caller
 * holds, who says afterwards whether it was {@link committed} or is to be forgotten.
 */
export class OpenHolds {
  readonly #db: DatabaseSync;
  readonly #boot: number;
  readonly #insert: StatementSync;
  readonly #mark: StatementSync;
  readonly #delete: StatementSync;
  readonly #open = new Map<string, OpenHold>();
  readonly #freeSlots: number[] = [];
  #slots = 0;
  /** Made in this transaction. */
  readonly #fresh = new Map<string, OpenHold>();
  readonly #freshSlots: number[] = [];
  /** Settled in this transaction. */
  readonly #settling = new Set<OpenHold>();

  constructor(db: DatabaseSync, boot: number) {
    this.#db = db;
    this.#boot = boot;
    this.#insert = db.prepare(
      "INSERT INTO hold (id, boot, until, windows, ids, cells) VALUES (?, ?, ?, ?, ?, ?)",
    );
    this.#mark = db.prepare("UPDATE hold SET settled = ? WHERE id = ?");
    this.#delete = db.prepare("DELETE FROM hold WHERE id = ?");
    // Those that a writer left which died in this process.
    for (const stored of this.#read("boot = ?", boot)) {
      for (const hold of holdsIn(stored, boot)) this.#open.set(hold.id, hold);
      this.#slots = Math.max(this.#slots, (stored.id % SLOTS) + 1);
    }
  }

  /** One of this process; undefined where it is not open. */
  find(id: string): OpenHold | undefined {
    return this.#fresh.get(id) ?? this.#open.get(id);
  }
  /** One of other processes, dead ones mostly, which takes reading all of theirs. */
  search(id: string): OpenHold | undefined {
    for (const stored of this.#read("boot <> ? AND instr(ids, ?) > 0", this.#boot, JSON.stringify(id))) {
      const found = holdsIn(stored, this.#boot).find((hold) => hold.id === id);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  add(granted: readonly Granted[]): void {
    for (let first = 0; first < granted.length; first += PER_ROW)
      this.#add(granted.slice(first, first + PER_ROW));
  }
  /** False where it has been settled in this transaction already. */
  settle(hold: OpenHold): boolean {
    if (this.#settling.has(hold)) return false;
    this.#settling.add(hold);
    return true;
  }
  /** Before the commit. */
  write(): void {
    if (this.#settling.size === 0) return;
    const touched = new Set<HoldRow>();
    for (const { row, index } of this.#settling) {
      row.settled[index] = 1;
      row.left--;
      touched.add(row);
    }
    for (const { key, left, settled } of touched)
      if (left === 0) this.#delete.run(key);
      else this.#mark.run(settled, key);
  }
  committed(): void {
    for (const hold of this.#settling) {
      this.#open.delete(hold.id);
      if (hold.row.left === 0 && hold.row.isOwn) {
        hold.row.left = -1;
        this.#freeSlots.push(hold.row.key % SLOTS);
      }
    }
    this.#settling.clear();
    for (const [id, hold] of this.#fresh) this.#open.set(id, hold);
    this.#fresh.clear();
    this.#freshSlots.length = 0;
  }
  /** After a rollback. `isWritten`: {@link write} was called. */
  forget(): void {
    for (const { row, index } of this.#settling) {
      if (row.settled[index] === 0) continue;
      row.settled[index] = 0;
      row.left++;
    }
    this.#settling.clear();
    this.#fresh.clear();
    this.#freeSlots.push(...this.#freshSlots);
    this.#freshSlots.length = 0;
  }

  #add(granted: readonly Granted[]): void {
    const slot = this.#freeSlots.pop() ?? this.#slots++;
    this.#freshSlots.push(slot);
    const row: HoldRow = {
      key: this.#boot * SLOTS + slot,
      isOwn: true,
      settled: new Uint8Array(granted.length),
      left: granted.length,
    };
    const sets: (readonly WindowKey[])[] = [];
    const words = new Uint32Array(granted.length * WORDS);
    let until = 0;
    granted.forEach((each, index) => {
      const { id, nanoUsd, windows, used, begin } = each;
      this.#fresh.set(id, { id, nanoUsd, windows, used, row, index });
      const known = sets.lastIndexOf(windows);
      const at = index * WORDS;
      words[at] = known < 0 ? sets.push(windows) - 1 : known;
      words[at + 1] = nanoUsd % 2 ** 32;
      words[at + 2] = nanoUsd / 2 ** 32;
      for (let place = 0; place < BEGIN.LENGTH; place++) {
        const cell = begin === undefined ? Number.NaN : begin[place]!;
        words[at + 3 + place] = Number.isNaN(cell) ? NONE : cell;
      }
      until = Math.max(until, each.until);
    });
    this.#insert.run(
      row.key,
      this.#boot,
      until,
      JSON.stringify(
        sets.map((windows) => windows.map(({ scope, period, from }) => ({ scope, period, from }))),
      ),
      JSON.stringify(granted.map(({ id }) => id)),
      new Uint8Array(words.buffer),
    );
  }
  #read(where: string, ...values: (string | number)[]): readonly StoredRow[] {
    return this.#db
      .prepare(`SELECT * FROM hold WHERE ${where}`)
      .all(...values) as unknown as readonly StoredRow[];
  }
}

/** Those of a row that are open. What was used when they were made is not known any more: it says nothing. */
function holdsIn({ id: key, boot, windows, ids, cells, settled }: StoredRow, own: number): OpenHold[] {
  const sets = JSON.parse(windows) as readonly (readonly WindowKey[])[];
  const names = JSON.parse(ids) as readonly string[];
  const words = wordsOf(cells);
  const row: HoldRow = {
    key,
    isOwn: boot === own,
    settled: settled === null ? new Uint8Array(names.length) : Uint8Array.from(settled),
    left: 0,
  };
  const holds = names.map((id, index): OpenHold => {
    const at = index * WORDS;
    const own = sets[words[at]!]!;
    const nanoUsd = words[at + 1]! + words[at + 2]! * 2 ** 32;
    return { id, nanoUsd, windows: own, used: own.map(() => nanoUsd), row, index };
  });
  const open = holds.filter(({ index }) => row.settled[index] === 0);
  row.left = open.length;
  return open;
}

/** The beginnings of exchanges in a row, for each that has one. */
export function beginningsIn(cells: Uint8Array): Float64Array[] {
  const words = wordsOf(cells);
  const found: Float64Array[] = [];
  for (let at = 3; at < words.length; at += WORDS) {
    if (words[at + BEGIN.PROJECT] === NONE) continue;
    found.push(
      Float64Array.from(words.subarray(at, at + BEGIN.LENGTH), (word, place) =>
        word === NONE && place >= BEGIN.PROJECT ? Number.NaN : word,
      ),
    );
  }
  return found;
}

function wordsOf(cells: Uint8Array): Uint32Array {
  const copy = Uint8Array.from(cells);
  return new Uint32Array(copy.buffer, 0, copy.length / 4);
}

import type { DatabaseSync, StatementSync } from "node:sqlite";
import { TEXT_KINDS, type TextKind } from "./codes.ts";
import { MAX_NAME_LENGTH } from "./names.ts";

/** Clients choose these texts: how many there may be of a kind. */
const MAX_OF_KIND = 10_000;
/** Of sessions there is no end, but they go when the last of their exchanges does. */
const UNBOUNDED: ReadonlySet<TextKind> = new Set(["session"]);
/** What stands for all further ones of a kind that is full. */
export const OTHER = "(other)";

const CACHED = 20_000;

/** Gives the ids of texts, and adds those that are new. */
export class Dictionary {
  readonly #find: StatementSync;
  readonly #add: StatementSync;
  readonly #count: StatementSync;
  readonly #ids = new Map<string, number>();
  readonly #counts = new Map<TextKind, number>();

  constructor(db: DatabaseSync) {
    this.#find = db.prepare("SELECT id FROM text WHERE kind = ? AND value = ?");
    this.#add = db.prepare("INSERT INTO text (kind, value) VALUES (?, ?)");
    this.#count = db.prepare("SELECT count(*) AS n FROM text WHERE kind = ?");
  }

  /** Ids that were given before that changed need not be there any more. */
  timesForgotten = 0;

  id(kind: TextKind, text: string): number {
    const value = text.length > MAX_NAME_LENGTH ? text.slice(0, MAX_NAME_LENGTH) : text;
    const key = `${kind}\n${value}`;
    const known = this.#ids.get(key);
    if (known !== undefined) return known;
    const code = TEXT_KINDS.indexOf(kind);
    const found = this.#find.get(code, value);
    let id: number;
    if (found !== undefined) id = Number(found["id"]);
    else if (this.#isFull(kind, code) && value !== OTHER) return this.id(kind, OTHER);
    else {
      id = Number(this.#add.run(code, value).lastInsertRowid);
      this.#counts.set(kind, (this.#counts.get(kind) ?? 0) + 1);
    }
    if (this.#ids.size >= CACHED) this.#ids.clear();
    this.#ids.set(key, id);
    return id;
  }
  /** Forgets what it knows: after a rollback, ids that were given do not exist. */
  forget(): void {
    this.#ids.clear();
    this.#counts.clear();
    this.timesForgotten++;
  }

  #isFull(kind: TextKind, code: number): boolean {
    if (UNBOUNDED.has(kind)) return false;
    let count = this.#counts.get(kind);
    if (count === undefined) {
      count = Number(this.#count.get(code)?.["n"]);
      this.#counts.set(kind, count);
    }
    return count >= MAX_OF_KIND;
  }
}

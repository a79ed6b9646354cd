import type { DatabaseSync, StatementSync } from "node:sqlite";

const CACHED = 5_000;

/** The texts of ids, for whoever reads rows. */
export class TextsById {
  readonly #find: StatementSync;
  readonly #texts = new Map<number, string | undefined>();

  constructor(db: DatabaseSync) {
    this.#find = db.prepare("SELECT value FROM text WHERE id = ?");
  }
  /** Undefined for no id, and for one that is gone. */
  of(id: unknown): string | undefined {
    if (typeof id !== "number") return undefined;
    const known = this.#texts.get(id);
    if (known !== undefined) return known;
    const value = this.#find.get(id)?.["value"];
    const text = typeof value === "string" ? value : undefined;
    if (this.#texts.size >= CACHED) this.#texts.clear();
    this.#texts.set(id, text);
    return text;
  }
}

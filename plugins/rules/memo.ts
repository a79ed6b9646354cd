/** What is known of a segment under a ruleset. */
export interface Known {
  /** What it is sent as; undefined: as it is. */
  readonly text: string | undefined;
  /** Tokens that it is shorter by. */
  readonly saved: number;
}

export const UNCHANGED: Known = Object.freeze({ text: undefined, saved: 0 });

const HALF_CHARACTERS = 4_000_000;
const ENTRY_CHARACTERS = 100;

/** Keeps what was worked out for segments, bounded, the least recently used forgotten first. */
export class Memo {
  /** Two generations: what is used moves to the young one, and when that is full the old one goes. */
  #young = new Map<string, Known>();
  #old = new Map<string, Known>();
  #characters = 0;
  readonly #halfCharacters: number;

  constructor(halfCharacters: number = HALF_CHARACTERS) {
    this.#halfCharacters = halfCharacters;
  }

  get(key: string): Known | undefined {
    const young = this.#young.get(key);
    if (young !== undefined) return young;
    const old = this.#old.get(key);
    if (old !== undefined) this.set(key, old);
    return old;
  }
  set(key: string, known: Known): void {
    this.#old.delete(key);
    this.#young.set(key, known);
    this.#characters += key.length + (known.text?.length ?? 0) + ENTRY_CHARACTERS;
    if (this.#characters <= this.#halfCharacters) return;
    this.#old = this.#young;
    this.#young = new Map();
    this.#characters = 0;
  }
}

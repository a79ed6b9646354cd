import { type ServiceToken, service } from "./service.ts";

/** A longer value is kept in memory only. */
export const MAX_DECISION_CHARACTERS = 65_536;

/**
 * What one plugin decided, by key: how a segment is rewritten (by its hash), where a session was cut, what stands for the
 * part before. A key is a hash and a value says what was decided, not what it was decided about: prompts are not kept.
 */
export interface DecisionBook {
  /** What memory has, at once. Undefined: nothing was decided, or it lies on disk: {@link find} tells. */
  get(key: string): string | undefined;
  /**
   * What was decided, in this process or one before it. A promise only where the disk must be asked, which happens for
   * what was long unused, and in the moments after a start. Never rejects: a disk that does not answer has nothing.
   */
  find(key: string): string | undefined | Promise<string | undefined>;
  /** Keeps a decision, in the place of an earlier one: in memory at once, on disk a moment later. */
  set(key: string, value: string): void;
}

/**
 * Remembers decisions, so that a request that grows turn by turn is rewritten as it was before, also across a reload and
 * a restart: what a provider cached of it stays good. What is not used for 30 days is forgotten.
 *
 * A miss is always possible: a process killed before the disk had it, a damaged disk, too long a pause. Who asks must be
 * right without an answer, at worst dearer. A decision that follows from the content alone is simply made again; it is
 * recorded to spare the work, or where it may have hung on something else (a setting, a time-out). One that does not (a
 * cut, a summary, whether a prefix is marked) is acted upon after {@link flush}, if acting on it costs a cache to undo.
 */
export interface Decisions {
  /** The book of that name; the same one for all generations. A plugin takes its own name. */
  book(name: string): DecisionBook;
  /** Resolves when all that was set before is on disk, or cannot be written. Never rejects. */
  flush(): Promise<void>;
}
export const Decisions: ServiceToken<Decisions> = service<Decisions>("Decisions");

/** Where decisions also are, besides memory. */
export interface DecisionShelf {
  /** Undefined: there is none. Never rejects. */
  find(book: string, key: string): Promise<string | undefined>;
  /** Writes behind. Also called for what is used again after a day, so that its age counts from then. */
  put(book: string, key: string, value: string, at: number): void;
  flush(): Promise<void>;
}

/** About 32 MB with both halves full. */
const HALF_CHARACTERS = 8_000_000;
const ENTRY_CHARACTERS = 100;
const DAY_MS = 86_400_000;

interface Entry {
  readonly value: string;
  /** When it was last written down. */
  at: number;
}

/**
 * Decisions in memory, bounded, the least recently used forgotten first; with a shelf behind it, or without one for a
 * TokenMan that keeps nothing and for tests.
 */
export class DecisionMemory implements Decisions {
  readonly #shelf: DecisionShelf | undefined;
  readonly #halfCharacters: number;
  readonly #books = new Map<string, DecisionBook>();
  /** Two generations: what is used moves to the young one, and when that is full the old one goes. */
  #young = new Map<string, Entry>();
  #old = new Map<string, Entry>();
  #characters = 0;
  /** Memory has all that the shelf has. */
  #isComplete: boolean;

  constructor(shelf?: DecisionShelf, halfCharacters: number = HALF_CHARACTERS) {
    this.#shelf = shelf;
    this.#halfCharacters = halfCharacters;
    this.#isComplete = shelf === undefined;
  }

  get size(): number {
    return this.#young.size + this.#old.size;
  }
  book(name: string): DecisionBook {
    let book = this.#books.get(name);
    if (book === undefined) {
      book = {
        get: (key) => this.#get(name, key),
        find: (key) => this.#get(name, key) ?? this.#find(name, key),
        set: (key, value) => {
          const at = Date.now();
          this.#keep(`${name} ${key}`, { value, at });
          this.#put(name, key, value, at);
        },
      };
      this.#books.set(name, book);
    }
    return book;
  }
  /** Takes in what the shelf has, the last used last; what is decided here already stands. */
  load(name: string, key: string, value: string, at: number): void {
    const id = `${name} ${key}`;
    if (!this.#young.has(id) && !this.#old.has(id)) this.#keep(id, { value, at });
  }
  /** Says that all that the shelf has was loaded: from now on it is asked only for what memory forgets. */
  loadedAll(): void {
    this.#isComplete = this.#old.size === 0;
  }
  async flush(): Promise<void> {
    await this.#shelf?.flush();
  }

  #get(name: string, key: string): string | undefined {
    const id = `${name} ${key}`;
    let entry = this.#young.get(id);
    if (entry === undefined) {
      entry = this.#old.get(id);
      if (entry === undefined) return undefined;
      this.#old.delete(id);
      this.#keep(id, entry);
    }
    const now = Date.now();
    if (now - entry.at > DAY_MS) {
      entry.at = now;
      this.#put(name, key, entry.value, now);
    }
    return entry.value;
  }
  #find(name: string, key: string): undefined | Promise<string | undefined> {
    if (this.#isComplete) return undefined;
    return this.#shelf?.find(name, key).then((value) => {
      // Long unused: its age counts from now on.
      if (value !== undefined) this.load(name, key, value, 0);
      // What was decided while the shelf was asked stands.
      return this.#get(name, key);
    });
  }
  #put(name: string, key: string, value: string, at: number): void {
    if (value.length <= MAX_DECISION_CHARACTERS) this.#shelf?.put(name, key, value, at);
  }
  #keep(id: string, entry: Entry): void {
    const earlier = this.#young.get(id);
    if (earlier !== undefined) this.#characters -= id.length + earlier.value.length + ENTRY_CHARACTERS;
    this.#old.delete(id);
    this.#young.set(id, entry);
    this.#characters += id.length + entry.value.length + ENTRY_CHARACTERS;
    if (this.#characters <= this.#halfCharacters) return;
    if (this.#old.size > 0 && this.#shelf !== undefined) this.#isComplete = false;
    this.#old = this.#young;
    this.#young = new Map();
    this.#characters = 0;
  }
}

import type { StoredReply } from "@tokenman/plugin-sdk";
import QuickLRU from "quick-lru";

/** What an entry takes beside its body: key, headers, objects. Measured on replies with twenty headers. */
const ENTRY_OVERHEAD_BYTES = 2_048;
/**
 * Entries after which quick-lru begins a new generation; it holds two. Bytes are what bounds the tier, so this only says how
 * finely it tells old from new.
 */
const GENERATION = 4_096;

/** A stored reply with what the tiers need to know of it. */
export interface Entry {
  readonly key: string;
  readonly project: string;
  readonly stored: StoredReply;
  /** Whether the disk has it, or is about to. */
  isWritten: boolean;
}

export function bytesOf({ stored }: Entry): number {
  return stored.body.length + ENTRY_OVERHEAD_BYTES;
}

/**
 * Replies in memory, the least recently used ones given up first. quick-lru keeps the order and counts entries; the
 * bytes are counted here, and what is over their bound is taken off its old end.
 */
export class MemoryTier {
  readonly #entries: QuickLRU<string, Entry>;
  #maxBytes: number;
  #bytes = 0;
  evicted = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
    this.#entries = new QuickLRU({
      maxSize: GENERATION,
      onEviction: (_key, entry) => {
        this.evicted++;
        this.#bytes -= bytesOf(entry);
      },
    });
  }

  get bytes(): number {
    return this.#bytes;
  }
  get count(): number {
    let count = 0;
    for (const _ of this.#entries.keys()) count++;
    return count;
  }
  resize(maxBytes: number): void {
    this.#maxBytes = maxBytes;
    this.#shrink();
  }
  get(key: string): Entry | undefined {
    return this.#entries.get(key);
  }
  /** What is larger than the whole tier is not taken. */
  put(entry: Entry): void {
    this.delete(entry.key);
    const bytes = bytesOf(entry);
    if (bytes > this.#maxBytes) return;
    this.#bytes += bytes;
    this.#entries.set(entry.key, entry);
    this.#shrink();
  }
  delete(key: string): void {
    const entry = this.#entries.peek(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    this.#bytes -= bytesOf(entry);
  }
  /** Oldest first, by their last use. */
  *values(): Generator<Entry> {
    for (const [, entry] of this.#entries.entriesAscending()) yield entry;
  }
  deleteWhere(matches: (entry: Entry) => boolean): number {
    const keys: string[] = [];
    for (const entry of this.values()) if (matches(entry)) keys.push(entry.key);
    for (const key of keys) this.delete(key);
    return keys.length;
  }

  #shrink(): void {
    if (this.#bytes <= this.#maxBytes) return;
    for (const entry of this.values()) {
      this.delete(entry.key);
      this.evicted++;
      if (this.#bytes <= this.#maxBytes) return;
    }
  }
}

import {
  type AnswerKey,
  type Flight,
  Flights,
  type Logger,
  type StoredReply,
  storeNow,
} from "@tokenman/plugin-sdk";
import { Disk } from "./disk.ts";
import { MemoryTier } from "./memory.ts";
import { Purges } from "./purges.ts";

/** Between two looks for what is too old. */
const EXPIRE_MS = 30_000;

export interface CacheSize {
  readonly memoryBytes: number;
  readonly diskBytes: number;
  /** The longest time for which any project keeps an answer, in milliseconds. */
  readonly ttlMs: number;
}

/** How full the cache is, and what it did since the process started. Times are in milliseconds, sizes in bytes. */
export interface CacheStats {
  readonly hits: number;
  readonly misses: number;
  readonly coalesced: number;
  readonly bypassed: number;
  readonly stored: number;
  readonly inFlight: number;
  readonly memory: { readonly entries: number; readonly bytes: number; readonly evicted: number };
  readonly disk: {
    readonly entries: number;
    readonly bytes: number;
    readonly written: number;
    readonly evicted: number;
    readonly failing: string | null;
  };
}

/** The two tiers and the requests in flight. One for all generations: a reload takes nothing away. */
export class Cache {
  readonly flights = new Flights();
  readonly #memory = new MemoryTier(0);
  readonly #disk: Disk;
  readonly #purges = new Purges();
  #ttlMs = 0;
  readonly #timer: NodeJS.Timeout;
  hits = 0;
  misses = 0;
  coalesced = 0;
  bypassed = 0;
  #stored = 0;

  constructor(file: string, log: Logger) {
    this.#disk = new Disk(file, log, this.#memory);
    this.#timer = setInterval(() => this.#expire(), EXPIRE_MS).unref();
  }

  configure({ memoryBytes, diskBytes, ttlMs }: CacheSize): void {
    this.#ttlMs = ttlMs;
    this.#memory.resize(memoryBytes);
    this.#disk.resize(diskBytes);
  }

  /** What is stored for a request that was answered by {@link find} lately, however old; see `AnswerKey.words`. */
  recall(words: Int32Array, body: Buffer): StoredReply | undefined {
    return this.#memory.recall(words, body);
  }
  /**
   * What is stored under the key, however old; a promise where it must be read from disk. `asked`: the body that the key
   * was made of, if it may be remembered.
   */
  find(key: AnswerKey, asked?: Buffer): StoredReply | undefined | Promise<StoredReply | undefined> {
    const stored = this.#memory.get(key, asked);
    if (stored !== undefined) return stored;
    if (this.#disk.loading !== undefined) return this.#whenLoaded(key);
    return this.#disk.has(key) ? this.#read(key) : undefined;
  }
  /** Whether the flight began before the last purge of its project: what it brings is of before, too. */
  isPurged({ number }: Flight, project: string): boolean {
    return this.#purges.reach(number, project);
  }
  put(key: AnswerKey, project: string, stored: StoredReply): void {
    this.#stored++;
    this.#memory.put(key, project, stored, false);
    // An older answer under the same key must not come back after a restart.
    this.#disk.delete(key.hash);
    this.#disk.want();
  }
  /**
   * Drops the answers of a project, or all, and those under way when they come. Resolves to how many there were, when the
   * disk has none of them either; rejects with TM_DATA_DIR where it has.
   */
  async purge(project: string | undefined): Promise<number> {
    this.#purges.add(project, this.flights.begun);
    const hashes = this.#memory.purge(project);
    return hashes.length + (await this.#disk.purge(project, new Set(hashes)));
  }
  stats(): CacheStats {
    const { hits, misses, coalesced, bypassed } = this;
    const { bytes, count, evicted } = this.#memory;
    const disk = this.#disk;
    return {
      hits,
      misses,
      coalesced,
      bypassed,
      stored: this.#stored,
      inFlight: this.flights.size,
      memory: { entries: count, bytes, evicted },
      disk: {
        entries: disk.count,
        bytes: disk.bytes,
        written: disk.written,
        evicted: disk.evicted,
        failing: disk.failing ?? null,
      },
    };
  }
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#expire();
    await this.#disk.close();
  }

  async #whenLoaded(key: AnswerKey): Promise<StoredReply | undefined> {
    await this.#disk.loading;
    return this.find(key);
  }
  async #read(key: AnswerKey): Promise<StoredReply | undefined> {
    const purges = this.#purges.count;
    const entry = await this.#disk.read(key);
    // It was read before the purge, and must not come back by it.
    if (entry === undefined || this.#purges.count !== purges) return undefined;
    // Another request may have brought a newer one meanwhile.
    const newer = this.#memory.get(key);
    if (newer !== undefined) return newer;
    this.#memory.put(key, entry.project, entry.stored, true);
    return entry.stored;
  }
  #expire(): void {
    const before = storeNow() - this.#ttlMs;
    this.#memory.deleteOlder(before);
    this.#disk.expire(before);
  }
}

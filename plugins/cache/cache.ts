import { type Flight, Flights, type Logger, type StoredReply, storeNow } from "@tokenman/plugin-sdk";
import { Disk } from "./disk.ts";
import { type Entry, MemoryTier } from "./memory.ts";
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
    this.#disk = new Disk(file, log);
    this.#timer = setInterval(() => this.#expire(), EXPIRE_MS).unref();
  }

  configure({ memoryBytes, diskBytes, ttlMs }: CacheSize): void {
    this.#ttlMs = ttlMs;
    this.#memory.resize(memoryBytes);
    this.#disk.resize(diskBytes);
  }

  /** What is stored under the key, however old; a promise where it must be read from disk. */
  find(key: string): StoredReply | undefined | Promise<StoredReply | undefined> {
    const entry = this.#memory.get(key);
    if (entry !== undefined) return entry.stored;
    if (this.#disk.loading !== undefined) return this.#whenLoaded(key);
    return this.#disk.has(key) ? this.#read(key) : undefined;
  }
  /** Whether the flight began before the last purge of its project: what it brings is of before, too. */
  isPurged({ number }: Flight, project: string): boolean {
    return this.#purges.reach(number, project);
  }
  put(key: string, project: string, stored: StoredReply): void {
    const entry: Entry = { key, project, stored, isWritten: false };
    this.#stored++;
    this.#memory.put(entry);
    // An older answer under the same key must not come back after a restart.
    this.#disk.delete(key);
    this.#disk.add(entry);
  }
  /** Drops the answers of a project, or all, and those under way when they come. Resolves to how many there were, when the disk has none of them either. */
  async purge(project: string | undefined): Promise<number> {
    this.#purges.add(project, this.flights.begun);
    const keys = new Set<string>();
    for (const entry of this.#memory.values())
      if (project === undefined || entry.project === project) keys.add(entry.key);
    for (const key of keys) this.#memory.delete(key);
    return this.#disk.purge(project, keys);
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
    await this.#disk.close(this.#memory.values());
  }

  async #whenLoaded(key: string): Promise<StoredReply | undefined> {
    await this.#disk.loading;
    return this.find(key);
  }
  async #read(key: string): Promise<StoredReply | undefined> {
    const purges = this.#purges.count;
    const entry = await this.#disk.read(key);
    // It was read before the purge, and must not come back by it.
    if (entry === undefined || this.#purges.count !== purges) return undefined;
    // Another request may have brought a newer one meanwhile.
    const newer = this.#memory.get(key);
    if (newer !== undefined) return newer.stored;
    this.#memory.put(entry);
    return entry.stored;
  }
  #expire(): void {
    const before = storeNow() - this.#ttlMs;
    this.#memory.deleteWhere(({ stored }) => stored.at < before);
    this.#disk.expire(before);
  }
}

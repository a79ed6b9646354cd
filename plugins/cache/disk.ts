import { existsSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { type Logger, type StoredReply, storeNow } from "@tokenman/plugin-sdk";
import type { Entry } from "./memory.ts";
import type { DiskPlace, DiskRow, FromDisk, ToDisk } from "./messages.ts";

/** Between two batches. What is asked for only once within so short a time costs the disk nothing but this. */
const GATHER_MS = 1_000;
/** A batch at the most: a flood of requests that never come again must not keep a disk busy. */
const BATCH_ROWS = 64;
const BATCH_BYTES = 4 * 1024 * 1024;
/** What waits to be written at the most; older ones stay in memory only. */
const QUEUE_BYTES = 2 * BATCH_BYTES;
const QUEUE_ROWS = 1_024;
const MAX_PLACES = 50_000;
/** A thread without work ends, and its memory is free. */
const IDLE_MS = 30_000;
const ANSWER_MS = 2_000;
const CLOSE_MS = 5_000;
/** How long a disk is left alone that would not take a batch. */
const REST_MS = 30_000;

interface Place {
  readonly project: string;
  readonly at: number;
  readonly bytes: number;
}
interface Call {
  readonly done: (row: DiskRow | undefined) => void;
  readonly timer: NodeJS.Timeout;
}

/**
 * Replies on disk, in a database that a thread of its own reads and writes. What is there is known here, so that nothing is
 * asked for in vain. Whatever fails leaves the cache without this tier, and no request without its answer.
 */
export class Disk {
  readonly #file: string;
  readonly #log: Logger;
  readonly #places = new Map<string, Place>();
  readonly #calls = new Map<number, Call>();
  #nextCall = 1;
  #maxBytes = 0;
  #bytes = 0;
  #queue: Entry[] = [];
  #queuedBytes = 0;
  #deleted: string[] = [];
  #worker: Worker | undefined;
  #timer: NodeJS.Timeout | undefined;
  #idle: NodeJS.Timeout | undefined;
  /** Resolves when it is known what is on disk; undefined from then on. */
  #loading: { readonly promise: Promise<void>; readonly done: () => void } | undefined;
  #failing: string | undefined;
  #restUntil = 0;
  #closed = false;
  written = 0;
  evicted = 0;

  constructor(file: string, log: Logger) {
    this.#file = file;
    this.#log = log;
    if (!existsSync(file)) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#loading = { promise, done: resolve };
    // A file that does not open in time is left aside; whoever asked does not wait for ever.
    setTimeout(() => this.#loaded(), ANSWER_MS).unref();
    this.#start();
  }

  /** Until it is known what is on disk: whoever asks before that may wait for it. */
  get loading(): Promise<void> | undefined {
    return this.#loading?.promise;
  }
  get bytes(): number {
    return this.#bytes;
  }
  get count(): number {
    return this.#places.size;
  }
  /** Why nothing can be written at present. */
  get failing(): string | undefined {
    return this.#failing;
  }
  resize(maxBytes: number): void {
    this.#maxBytes = maxBytes;
    this.#shrink();
  }
  has(key: string): boolean {
    return this.#places.has(key);
  }

  /** The entry; undefined where it is not there, or does not come in time. Never rejects. */
  async read(key: string): Promise<Entry | undefined> {
    const row = await this.#ask((call) => ({ kind: "read", call, key }));
    const entry = row === undefined ? undefined : entryOf(row);
    if (entry === undefined) this.#forget(key);
    return entry;
  }
  /** To be written with the next batches. */
  add(entry: Entry): void {
    if (this.#maxBytes === 0 || this.#closed || entry.isWritten) return;
    entry.isWritten = true;
    this.#queue.push(entry);
    this.#queuedBytes += entry.stored.body.length;
    while (this.#queue.length > QUEUE_ROWS || this.#queuedBytes > QUEUE_BYTES) {
      const dropped = this.#queue.shift();
      if (dropped === undefined) break;
      dropped.isWritten = false;
      this.#queuedBytes -= dropped.stored.body.length;
    }
    this.#schedule();
  }
  delete(key: string): void {
    if (!this.#forget(key)) return;
    this.#deleted.push(key);
    this.#schedule();
  }
  /** Drops what is older. The places are in the order of their age, but for a few. */
  expire(before: number): void {
    for (const [key, { at }] of this.#places) {
      if (at >= before) return;
      this.delete(key);
    }
  }
  /**
   * Resolves when the entries of the project, or all, are gone from the disk, to how many different ones there were with
   * those of `keys`.
   */
  async purge(project: string | undefined, keys: Set<string>): Promise<number> {
    const { loading } = this;
    if (loading !== undefined) await loading;
    this.#queue = this.#queue.filter((entry) => project !== undefined && entry.project !== project);
    this.#queuedBytes = this.#queue.reduce((sum, { stored }) => sum + stored.body.length, 0);
    let found = false;
    for (const [key, place] of this.#places) {
      if (project !== undefined && place.project !== project) continue;
      this.#forget(key);
      keys.add(key);
      found = true;
    }
    if (found || this.#worker !== undefined) await this.#ask((call) => ({ kind: "purge", call, project }));
    return keys.size;
  }
  /** Writes what waits, and `last`, and ends the thread. */
  async close(last: Iterable<Entry>): Promise<void> {
    clearTimeout(this.#timer);
    if (this.#maxBytes > 0) {
      for (const entry of last) {
        if (entry.isWritten) continue;
        entry.isWritten = true;
        this.#queue.push(entry);
      }
    }
    while (this.#queue.length > 0 || this.#deleted.length > 0) this.#send();
    this.#closed = true;
    await this.#end();
    for (const call of [...this.#calls.keys()]) this.#answered(call, undefined);
  }

  #schedule(): void {
    if (this.#closed) return;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#send();
      if (this.#queue.length > 0 || this.#deleted.length > 0) this.#schedule();
    }, GATHER_MS).unref();
  }
  /** Sends one batch. */
  #send(): void {
    const deleted = this.#deleted.splice(0);
    const rows: DiskRow[] = [];
    let bytes = 0;
    const isResting = this.#failing !== undefined && storeNow() < this.#restUntil && !this.#closed;
    while (rows.length < BATCH_ROWS && bytes < BATCH_BYTES) {
      const entry = this.#queue.shift();
      if (entry === undefined) break;
      this.#queuedBytes -= entry.stored.body.length;
      if (isResting) {
        entry.isWritten = false;
        continue;
      }
      bytes += entry.stored.body.length;
      rows.push(rowOf(entry));
      this.#remember(entry.key, placeOf(entry));
    }
    if (rows.length === 0 && deleted.length === 0) return;
    this.written += rows.length;
    this.#post({ kind: "write", rows, deleted });
    this.#shrink();
  }
  #remember(key: string, place: Place): void {
    this.#forget(key);
    this.#places.set(key, place);
    this.#bytes += place.bytes;
  }
  #forget(key: string): boolean {
    const place = this.#places.get(key);
    if (place === undefined) return false;
    this.#bytes -= place.bytes;
    return this.#places.delete(key);
  }
  #shrink(): void {
    for (const key of this.#places.keys()) {
      if (this.#bytes <= this.#maxBytes && this.#places.size <= MAX_PLACES) return;
      this.delete(key);
      this.evicted++;
    }
  }

  #ask(message: (call: number) => ToDisk): Promise<DiskRow | undefined> {
    if (this.#closed) return Promise.resolve(undefined);
    const call = this.#nextCall++;
    return new Promise((done) => {
      const timer = setTimeout(() => this.#answered(call, undefined), ANSWER_MS);
      this.#calls.set(call, { done, timer });
      this.#post(message(call));
    });
  }
  #answered(call: number, row: DiskRow | undefined): void {
    const waiting = this.#calls.get(call);
    if (waiting === undefined) return;
    this.#calls.delete(call);
    clearTimeout(waiting.timer);
    waiting.done(row);
  }
  #post(message: ToDisk): void {
    this.#start().postMessage(message);
  }
  #start(): Worker {
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => void this.#end(), IDLE_MS).unref();
    if (this.#worker !== undefined) return this.#worker;
    const worker = new Worker(new URL("./cache-worker.ts", import.meta.url), {
      name: "cache",
      workerData: { file: this.#file },
    });
    this.#worker = worker;
    worker.unref();
    worker.on("message", (message: FromDisk) => this.#receive(message));
    worker.on("error", (cause: Error) => this.#failed(`the cache's thread failed: ${cause.message}`));
    worker.on("exit", () => {
      if (this.#worker !== worker) return;
      this.#worker = undefined;
      this.#loaded();
      for (const call of [...this.#calls.keys()]) this.#answered(call, undefined);
    });
    return worker;
  }
  /** Ends the thread once it has done what it was told. */
  async #end(): Promise<void> {
    clearTimeout(this.#idle);
    const worker = this.#worker;
    if (worker === undefined) return;
    this.#worker = undefined;
    const ended = new Promise<void>((resolve) => worker.once("exit", () => resolve()));
    worker.ref();
    worker.postMessage({ kind: "close" } satisfies ToDisk);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, CLOSE_MS);
    });
    await Promise.race([ended, late]);
    clearTimeout(timer);
    void worker.terminate();
  }
  #receive(message: FromDisk): void {
    switch (message.kind) {
      case "open":
        if (this.#loading !== undefined) this.#take(message.places);
        return;
      case "answer":
        this.#answered(message.call, message.row);
        return;
      case "state":
        if (message.emptied) {
          this.#places.clear();
          this.#bytes = 0;
        }
        if (message.failing === undefined) this.#recovered();
        else this.#failed(message.failing);
        return;
      case "log":
        this.#log[message.level](message.facts, message.message);
    }
  }
  #take(places: readonly DiskPlace[]): void {
    const now = storeNow();
    for (const [key, project, at, bytes] of places) {
      // Written by a clock that was ahead: nobody can say how old it is.
      this.#remember(key, { project, at, bytes });
      if (at > now + GATHER_MS) this.delete(key);
    }
    this.#loaded();
    this.#shrink();
  }
  #loaded(): void {
    this.#loading?.done();
    this.#loading = undefined;
  }
  #failed(failing: string): void {
    this.#restUntil = storeNow() + REST_MS;
    if (this.#failing === undefined)
      this.#log.warn(
        { err: failing, file: this.#file },
        "the cache cannot be written to disk; it goes on in memory",
      );
    this.#failing = failing;
  }
  #recovered(): void {
    if (this.#failing === undefined) return;
    this.#failing = undefined;
    this.#log.info({ file: this.#file }, "the cache is written to disk again");
  }
}

function placeOf({ project, stored }: Entry): Place {
  return { project, at: Math.floor(stored.at), bytes: stored.body.length };
}
function rowOf({ key, project, stored }: Entry): DiskRow {
  const { body, at, ...rest } = stored;
  return { key, project, at: Math.floor(at), head: JSON.stringify(rest), body };
}

/** Undefined for a row that somebody else has written. */
function entryOf({ key, project, at, head, body }: DiskRow): Entry | undefined {
  try {
    const rest = JSON.parse(head) as Omit<StoredReply, "body" | "at">;
    if (typeof rest.head !== "string" || typeof rest.provider !== "string") return undefined;
    const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
    return { key, project, stored: { ...rest, body: bytes, at }, isWritten: true };
  } catch {
    return undefined;
  }
}

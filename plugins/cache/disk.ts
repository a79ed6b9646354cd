import { existsSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { type AnswerKey, type Logger, type StoredReply, storeNow, TokenmanError } from "@tokenman/plugin-sdk";
import type { DiskEntry } from "./memory.ts";
import type { DiskPlace, DiskRow, FromDisk, FullRow, ToDisk } from "./messages.ts";

/** Between two batches. What is asked for only once within so short a time costs the disk nothing but this. */
const GATHER_MS = 1_000;
/** A batch at the most: a flood of requests that never come again must not keep a disk busy. */
const BATCH_ROWS = 64;
const LAST_ROWS = 1_024;
const BATCH_BYTES = 4 * 1024 * 1024;
/** What was stored before so many bytes of others stays in memory only, as long as it is there. */
const WITHIN_BYTES = 2 * 1024 * 1024;
const MAX_PLACES = 50_000;
/** A thread without work ends, and its memory is free. */
const IDLE_MS = 30_000;
const ANSWER_MS = 2_000;
const PURGE_MS = 30_000;
const CLOSE_MS = 5_000;
/** How long a disk is left alone that would not take a batch. */
const REST_MS = 30_000;

interface Place {
  readonly project: string;
  readonly at: number;
  readonly bytes: number;
}
/** An answer of the thread's that is waited for. */
interface Call {
  readonly done: (answer: FromDisk | undefined) => void;
  readonly timer: NodeJS.Timeout | undefined;
  /** The thread that was asked: when it is gone, nobody will answer. */
  readonly worker: Worker;
}

/** The memory, as the disk sees it; see {@link MemoryTier}. */
export interface DiskSource {
  unwritten(maxCount: number, maxBytes: number, withinBytes: number): DiskEntry[];
  notWritten(hashes: readonly number[]): void;
}

/**
 * Replies on disk, in a database that a thread of its own reads and writes. What is there is known here, so that nothing is
 * asked for in vain. Whatever fails leaves the cache without this tier, and no request without its answer.
 */
export class Disk {
  readonly #file: string;
  readonly #log: Logger;
  readonly #source: DiskSource;
  /** By the hash of their keys, in the order of their age, but for a few. */
  readonly #places = new Map<number, Place>();
  readonly #calls = new Map<number, Call>();
  #nextCall = 1;
  #whenQuiet: (() => void) | undefined;
  /** Infinite until it is told: what is there must not go before. */
  #maxBytes = Number.POSITIVE_INFINITY;
  #bytes = 0;
  /** Whether anything was ever in the file, as far as is known here. */
  #hasHeld = false;
  #isWanted = false;
  /** What is to be deleted, until the thread says that it is, and with which call it was told last; 0: with none yet. */
  readonly #deleted = new Map<number, number>();
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

  constructor(file: string, log: Logger, source: DiskSource) {
    this.#file = file;
    this.#log = log;
    this.#source = source;
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
  /** Whether there may be an answer with this key: another one may have the same hash. */
  has({ hash }: AnswerKey): boolean {
    return this.#places.has(hash);
  }

  /** The entry; undefined where it is not there, or does not come in time. Never rejects. */
  async read(key: AnswerKey): Promise<Omit<DiskEntry, "id" | "hash"> | undefined> {
    const { hash, id } = key;
    const answer = await this.#ask((call) => ({ kind: "read", call, hash }), ANSWER_MS);
    const row = answer?.kind === "answer" ? answer.row : undefined;
    // Another request's, with the same hash.
    if (row !== undefined && row.id !== id) return undefined;
    const entry = row === undefined ? undefined : entryOf(row);
    if (entry === undefined) this.#forget(hash);
    return entry;
  }
  /** There is something new in memory, to be written with the next batches. */
  want(): void {
    if (this.#maxBytes === 0 || this.#closed) return;
    this.#isWanted = true;
    this.#schedule();
  }
  delete(hash: number): void {
    if (!this.#forget(hash)) return;
    this.#deleted.set(hash, 0);
    this.#schedule();
  }
  /** Drops what is older. The places are in the order of their age, but for a few. */
  expire(before: number): void {
    for (const [hash, { at }] of this.#places) {
      if (at >= before) return;
      this.delete(hash);
    }
  }
  /**
   * Resolves when the entries of the project, or all, are gone from the disk, to how many there were besides those in
   * memory, whose hashes are given. Rejects with TM_DATA_DIR where they cannot be taken out of the file.
   */
  async purge(project: string | undefined, inMemory: ReadonlySet<number>): Promise<number> {
    const { loading } = this;
    if (loading !== undefined) await loading;
    let found = 0;
    let others = 0;
    for (const [hash, place] of this.#places) {
      if (project !== undefined && place.project !== project) continue;
      this.#forget(hash);
      found++;
      if (!inMemory.has(hash)) others++;
    }
    if (found === 0 && this.#worker === undefined) return others;
    const answer = await this.#ask((call) => ({ kind: "purge", call, project }), PURGE_MS);
    const failure = answer?.kind === "purged" ? answer.failure : "the cache's thread did not answer";
    if (failure !== undefined && this.#hasHeld && !this.#closed)
      throw new TokenmanError("TM_DATA_DIR", `${this.#file} still has purged answers: ${failure}`);
    return others;
  }
  /** Writes what waits, and all else that is only in memory, and ends the thread. */
  async close(): Promise<void> {
    // What a batch under way has failed to write is tried once more.
    for (let round = 0; round < 2; round++) {
      while (this.#maxBytes > 0 && this.#write(LAST_ROWS, Number.POSITIVE_INFINITY));
      await this.#quiet();
    }
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#end();
    for (const call of [...this.#calls.keys()]) this.#answered(call, undefined);
  }

  #schedule(): void {
    if (this.#closed || this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const isResting = this.#failing !== undefined && storeNow() < this.#restUntil;
      if (!isResting) this.#isWanted = this.#write(BATCH_ROWS, WITHIN_BYTES) && this.#isWanted;
      if (this.#isWanted || this.#deleted.size > 0) this.#schedule();
    }, GATHER_MS).unref();
  }
  /** Sends one batch. Gives whether there may be more to write. */
  #write(maxRows: number, withinBytes: number): boolean {
    const entries = this.#maxBytes === 0 ? [] : this.#source.unwritten(maxRows, BATCH_BYTES, withinBytes);
    if (entries.length === 0 && this.#deleted.size === 0) return false;
    const call = this.#nextCall++;
    const deleted = [...this.#deleted.keys()];
    for (const hash of deleted) this.#deleted.set(hash, call);
    const lengths = entries.map(({ stored }) => stored.body.length);
    const bodies = new Uint8Array(lengths.reduce((sum, length) => sum + length, 0));
    let end = 0;
    for (const entry of entries) {
      bodies.set(entry.stored.body, end);
      end += entry.stored.body.length;
      this.#remember(entry.hash, placeOf(entry));
    }
    this.written += entries.length;
    const rows = entries.map(rowOf);
    const hashes = entries.map(({ hash }) => hash);
    const worker = this.#start();
    this.#calls.set(call, { done: (answer) => this.#wrote(call, hashes, answer), timer: undefined, worker });
    const message: ToDisk = { kind: "write", call, rows, lengths, bodies: bodies.buffer, deleted };
    worker.postMessage(message, [bodies.buffer]);
    this.#shrink();
    return entries.length > 0;
  }
  /** What is not on disk after all is only in memory, and what is not deleted yet is to be deleted still. */
  #wrote(call: number, hashes: readonly number[], answer: FromDisk | undefined): void {
    const { rows, deleted } = answer?.kind === "written" ? answer : { rows: false, deleted: false };
    if (!rows) {
      for (const hash of hashes) this.#forget(hash);
      this.written -= hashes.length;
      this.#source.notWritten(hashes);
    }
    if (deleted) {
      for (const [hash, told] of this.#deleted) if (told === call) this.#deleted.delete(hash);
    }
    if (!rows && hashes.length > 0) this.want();
    else if (this.#deleted.size > 0) this.#schedule();
  }
  #remember(hash: number, place: Place): void {
    this.#forget(hash);
    this.#places.set(hash, place);
    this.#bytes += place.bytes;
    this.#hasHeld = true;
  }
  #forget(hash: number): boolean {
    const place = this.#places.get(hash);
    if (place === undefined) return false;
    this.#bytes -= place.bytes;
    return this.#places.delete(hash);
  }
  #shrink(): void {
    for (const hash of this.#places.keys()) {
      if (this.#bytes <= this.#maxBytes && this.#places.size <= MAX_PLACES) return;
      this.delete(hash);
      this.evicted++;
    }
  }

  #ask(message: (call: number) => ToDisk, withinMs: number): Promise<FromDisk | undefined> {
    if (this.#closed) return Promise.resolve(undefined);
    const call = this.#nextCall++;
    return new Promise((done) => {
      const timer = setTimeout(() => this.#answered(call, undefined), withinMs);
      const worker = this.#start();
      this.#calls.set(call, { done, timer, worker });
      worker.postMessage(message(call));
    });
  }
  #answered(call: number, answer: FromDisk | undefined): void {
    const waiting = this.#calls.get(call);
    if (waiting === undefined) return;
    this.#calls.delete(call);
    clearTimeout(waiting.timer);
    waiting.done(answer);
    if (this.#calls.size === 0) this.#whenQuiet?.();
  }
  /** Resolves when the thread has answered all that it was asked, or does not within a time. */
  async #quiet(): Promise<void> {
    if (this.#calls.size === 0) return;
    await new Promise<void>((resolve) => {
      const late = setTimeout(resolve, CLOSE_MS);
      this.#whenQuiet = () => {
        clearTimeout(late);
        resolve();
      };
    });
    this.#whenQuiet = undefined;
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
      if (this.#worker === worker) {
        this.#worker = undefined;
        this.#loaded();
      }
      // One that was ended may have been given up on with something still to do.
      for (const [call, asked] of [...this.#calls])
        if (asked.worker === worker) this.#answered(call, undefined);
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
    worker.postMessage({ kind: "close", deleted: [...this.#deleted.keys()] } satisfies ToDisk);
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
      case "written":
      case "purged":
        this.#answered(message.call, message);
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
    for (const [hash, project, at, bytes] of places) {
      // Written by a clock that was ahead: nobody can say how old it is.
      this.#remember(hash, { project, at, bytes });
      if (at > now + GATHER_MS) this.delete(hash);
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

function placeOf({ project, stored }: DiskEntry): Place {
  return { project, at: Math.floor(stored.at), bytes: stored.body.length };
}
function rowOf({ hash, id, project, stored }: DiskEntry): DiskRow {
  const { body: _, at, ...rest } = stored;
  return { hash, id, project, at: Math.floor(at), head: JSON.stringify(rest) };
}

/** Undefined for a row that somebody else has written. */
function entryOf({ project, at, head, body }: FullRow): Omit<DiskEntry, "id" | "hash"> | undefined {
  try {
    const rest = JSON.parse(head) as Omit<StoredReply, "body" | "at">;
    if (!Array.isArray(rest.headers) || typeof rest.provider !== "string") return undefined;
    const bytes = Buffer.from(body.buffer, body.byteOffset, body.byteLength);
    return { project, stored: { ...rest, body: bytes, at } };
  } catch {
    return undefined;
  }
}

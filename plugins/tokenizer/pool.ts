import { Worker } from "node:worker_threads";
import type { Encoding } from "./encoding.ts";
import type { Job, JobResult, Piece } from "./messages.ts";

export interface PoolOptions {
  /** Threads at most. The next one starts when a job has to wait. */
  readonly size: number;
  /** How long a thread may have nothing to do before it ends and gives its memory back. */
  readonly idleMs: number;
  /** Told of threads that died. */
  readonly onCrash: (error: unknown) => void;
  /** How long one job may take, an encoding's loading included. */
  readonly jobMs?: number;
}

interface Pending {
  readonly job: Job;
  readonly resolve: (counts: readonly number[] | undefined) => void;
  tries: number;
}

interface Thread {
  readonly worker: Worker;
  busy: Pending | undefined;
  /** Runs out for an idle thread, and for a job that takes too long. */
  timer: NodeJS.Timeout | undefined;
}

const JOB_MS = 15_000;
/** A job that was there when a thread died is tried once more: the next time it may have been its doing. */
const MAX_TRIES = 2;

/** Threads that count, started when there is something to count. A busy one keeps the process alive, an idle one does not. */
export class CountingPool {
  readonly #options: PoolOptions;
  readonly #threads = new Set<Thread>();
  readonly #queue: Pending[] = [];
  #nextId = 1;
  #closed = false;

  constructor(options: PoolOptions) {
    this.#options = options;
  }

  /** Tokens, piece by piece; undefined where they cannot be counted, because threads die of it or the pool is closed. */
  count(encoding: Encoding, pieces: readonly Piece[]): Promise<readonly number[] | undefined> {
    if (this.#closed) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      this.#queue.push({ job: { id: this.#nextId++, encoding, pieces }, resolve, tries: 0 });
      this.#dispatch();
    });
  }

  /** How many threads there are. */
  get threads(): number {
    return this.#threads.size;
  }

  /** Ends all threads; what was not counted yet is not any more. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const pending of this.#queue.splice(0)) pending.resolve(undefined);
    const threads = [...this.#threads];
    await Promise.all(
      threads.map((thread) => {
        this.#remove(thread);
        return thread.worker.terminate();
      }),
    );
  }

  #dispatch(): void {
    while (this.#queue.length > 0) {
      const free = [...this.#threads].find(({ busy }) => busy === undefined);
      const thread = free ?? (this.#threads.size < this.#options.size ? this.#start() : undefined);
      if (thread === undefined) return;
      this.#give(thread, this.#queue.shift()!);
    }
  }

  #start(): Thread {
    const worker = new Worker(new URL("./count-worker.ts", import.meta.url), { name: "tokenizer" });
    const thread: Thread = { worker, busy: undefined, timer: undefined };
    this.#threads.add(thread);
    worker.on("message", ({ id, counts }: JobResult) => {
      const pending = thread.busy;
      if (pending?.job.id !== id) return;
      this.#rest(thread);
      pending.resolve(counts);
      this.#dispatch();
    });
    worker.on("error", (error) => this.#crashed(thread, error));
    worker.on("exit", (code) => this.#crashed(thread, new Error(`the thread ended with code ${code}`)));
    return thread;
  }

  #give(thread: Thread, pending: Pending): void {
    clearTimeout(thread.timer);
    thread.busy = pending;
    pending.tries++;
    thread.worker.ref();
    const jobMs = this.#options.jobMs ?? JOB_MS;
    thread.timer = setTimeout(() => this.#crashed(thread, new Error(`a job took over ${jobMs} ms`)), jobMs);
    thread.worker.postMessage(pending.job);
  }

  #rest(thread: Thread): void {
    clearTimeout(thread.timer);
    thread.busy = undefined;
    thread.worker.unref();
    thread.timer = setTimeout(() => {
      this.#remove(thread);
      void thread.worker.terminate();
    }, this.#options.idleMs);
    thread.timer.unref();
  }

  #crashed(thread: Thread, error: unknown): void {
    // "exit" follows "error", and the end that was asked for: only the first counts.
    if (!this.#threads.has(thread)) return;
    const pending = thread.busy;
    this.#remove(thread);
    void thread.worker.terminate();
    this.#options.onCrash(error);
    if (pending !== undefined) {
      if (pending.tries < MAX_TRIES) this.#queue.unshift(pending);
      else pending.resolve(undefined);
    }
    this.#dispatch();
  }

  #remove(thread: Thread): void {
    clearTimeout(thread.timer);
    this.#threads.delete(thread);
    if (this.#closed) thread.busy?.resolve(undefined);
  }
}

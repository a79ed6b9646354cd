import { Worker } from "node:worker_threads";
import { TokenmanError } from "@tokenman/plugin-sdk";
import type { WireError } from "./messages.ts";
import type { Question, ToReader } from "./reader-worker.ts";
import { asError } from "./wire-error.ts";

/** Threads that read, so that a slow question does not hold up a quick one. */
const READERS = 2;
/** How long a question may take, waiting for a reader included. */
const ANSWER_MS = 10_000;
/** Questions that may wait. */
const MAX_WAITING = 1_000;
/** A reader that nobody asks is given up, and its memory with it. */
const IDLE_MS = 60_000;

interface Asked extends ToReader {
  resolve(value: unknown): void;
  reject(error: Error): void;
  readonly timer: NodeJS.Timeout;
}

interface Reader {
  readonly worker: Worker;
  asked: Asked | undefined;
  idle: NodeJS.Timeout | undefined;
}

/** Threads that answer questions to the ledger. Started when something is asked. */
export class Readers {
  readonly #file: string;
  readonly #readers = new Set<Reader>();
  readonly #waiting: Asked[] = [];
  #lastCall = 0;
  #isClosed = false;

  constructor(file: string) {
    this.#file = file;
  }

  /** Rejects with TM_LEDGER_QUERY, TM_LEDGER_TIMEOUT and TM_LEDGER_UNAVAILABLE. */
  ask(question: Question, ...parameters: readonly unknown[]): Promise<unknown> {
    if (this.#isClosed || this.#waiting.length >= MAX_WAITING)
      return Promise.reject(new TokenmanError("TM_LEDGER_UNAVAILABLE", "the ledger takes no questions now"));
    return new Promise((resolve, reject) => {
      const call = ++this.#lastCall;
      const timer = setTimeout(() => this.#late(call), ANSWER_MS);
      this.#waiting.push({ call, question, parameters, resolve, reject, timer });
      this.#next();
    });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    const closing = new TokenmanError("TM_LEDGER_UNAVAILABLE", "the ledger is closed");
    for (const asked of this.#waiting.splice(0)) settle(asked, closing);
    await Promise.all([...this.#readers].map((reader) => this.#end(reader, closing)));
  }

  #next(): void {
    while (this.#waiting.length > 0) {
      const reader = [...this.#readers].find(({ asked }) => asked === undefined) ?? this.#start();
      if (reader === undefined) return;
      clearTimeout(reader.idle);
      const asked = this.#waiting.shift()!;
      reader.asked = asked;
      const { call, question, parameters } = asked;
      reader.worker.postMessage({ call, question, parameters } satisfies ToReader);
    }
  }
  #start(): Reader | undefined {
    if (this.#readers.size >= READERS) return undefined;
    const worker = new Worker(new URL("./reader-worker.ts", import.meta.url), {
      workerData: { file: this.#file },
      name: "ledger reader",
      resourceLimits: { maxYoungGenerationSizeMb: 8 },
    });
    // A question that nobody waits for must not keep the process alive.
    worker.unref();
    const reader: Reader = { worker, asked: undefined, idle: undefined };
    this.#readers.add(reader);
    worker.on("message", (answer: { readonly value?: unknown; readonly error?: WireError }) => {
      const { asked } = reader;
      reader.asked = undefined;
      if (asked !== undefined)
        settle(asked, answer.error === undefined ? undefined : asError(answer.error), answer.value);
      reader.idle = setTimeout(() => void this.#end(reader), IDLE_MS);
      reader.idle.unref();
      this.#next();
    });
    worker.on("error", (cause) => {
      void this.#end(
        reader,
        new TokenmanError("TM_LEDGER_UNAVAILABLE", "a reader of the ledger failed", { cause }),
      );
    });
    return reader;
  }
  #late(call: number): void {
    const error = new TokenmanError("TM_LEDGER_TIMEOUT");
    const waiting = this.#waiting.findIndex((asked) => asked.call === call);
    if (waiting >= 0) {
      settle(this.#waiting.splice(waiting, 1)[0]!, error);
      return;
    }
    // SQLite cannot be told to stop from outside: its thread is left to end by itself, and another one takes its place.
    const reader = [...this.#readers].find(({ asked }) => asked?.call === call);
    if (reader !== undefined) void this.#end(reader, error);
  }
  async #end(reader: Reader, error?: Error): Promise<void> {
    if (!this.#readers.delete(reader)) return;
    clearTimeout(reader.idle);
    const { asked } = reader;
    reader.asked = undefined;
    if (asked !== undefined) settle(asked, error ?? new TokenmanError("TM_LEDGER_UNAVAILABLE"));
    if (!this.#isClosed) this.#next();
    await reader.worker.terminate();
  }
}

function settle(asked: Asked, error: Error | undefined, value?: unknown): void {
  clearTimeout(asked.timer);
  if (error === undefined) asked.resolve(value);
  else asked.reject(error);
}

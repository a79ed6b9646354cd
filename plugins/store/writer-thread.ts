import { Worker } from "node:worker_threads";
import {
  type BudgetWindow,
  type LedgerBegin,
  type LedgerEnd,
  type LedgerState,
  type LedgerTrial,
  type Logger,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import type { DecisionRow, Recalled } from "./decision-rows.ts";
import type {
  AllowanceAnswer,
  AllowanceAsk,
  Batch,
  FromWriter,
  Operation,
  ToWriter,
  Tuning,
  WindowAmount,
  WriterSettings,
} from "./messages.ts";
import type { Allowances } from "./reserver.ts";
import { RowPacker } from "./row-packer.ts";
import { asError } from "./wire-error.ts";

/**
 * How long rows wait for others to share their way to the writer, and its commit, which costs as much as some dozens of
 * them. They are promised to be on disk within 200.
 */
const GATHER_MS = 80;
/** So many do not wait any longer: a reservation may have to wait while they are written. */
const GATHER_ROWS = 1_000;
/** Rows on their way to a writer that does not keep up; further ones are given up. */
const MAX_ON_THE_WAY = 50_000;
/** How long a reservation, settlement or flush may take. */
const ANSWER_MS = 15_000;
const RESTART_MS = 1_000;
const CLOSE_MS = 10_000;

/** Questions that leave the database as it is. */
const QUESTIONS = new Set<Operation["kind"]>(["recall", "decided", "used", "flush"]);

type CallOperation = Extract<Operation, { readonly call: number }>;
/** Distributes over the union, which `Omit` does not. */
type Asked = CallOperation extends infer O ? (O extends CallOperation ? Omit<O, "call"> : never) : never;

interface Call {
  resolve(value: unknown): void;
  reject(error: Error): void;
  readonly timer: NodeJS.Timeout;
}

/** The writer, seen from the thread that proxies: nothing here waits for a disk. */
export class WriterThread implements Allowances {
  #settings: WriterSettings;
  #log: Logger;
  #worker: Worker | undefined;
  readonly #rows = new RowPacker();
  /** What is no row. */
  #operations: string[] = [];
  #bodies: Batch["bodies"][number][] = [];
  #timer: NodeJS.Timeout | undefined;
  #soon: NodeJS.Immediate | undefined;
  readonly #calls = new Map<number, Call>();
  #lastCall = 0;
  /** Rows handed over and not yet reported as written or lost. */
  #onTheWay = 0;
  #lost = 0;
  #isUsed = false;
  #failing: string | undefined;
  #closed: (() => void) | undefined;
  #isClosing = false;
  #restart: NodeJS.Timeout | undefined;

  private constructor(settings: WriterSettings, log: Logger) {
    this.#settings = settings;
    this.#log = log;
  }

  /**
   * Resolves when the database is open, or is known not to open now. Rejects with TM_LEDGER_SCHEMA, and with
   * TM_LEDGER_UNAVAILABLE where the thread cannot run at all.
   */
  static async start(settings: WriterSettings, log: Logger): Promise<WriterThread> {
    const thread = new WriterThread(settings, log);
    try {
      await thread.#start();
      return thread;
    } catch (cause) {
      // Nobody will close what nobody gets: no other thread must follow.
      thread.#isClosing = true;
      clearTimeout(thread.#restart);
      throw cause;
    }
  }

  get state(): LedgerState {
    return { lost: this.#lost, waiting: this.#onTheWay + this.#rows.count, failing: this.#failing };
  }
  /** Whether anything was ever given to it to be kept. */
  get isUsed(): boolean {
    return this.#isUsed || this.#rows.count > 0;
  }
  tune(tuning: Tuning): void {
    this.#settings = { ...this.#settings, ...tuning };
    this.#post({ kind: "tune", tuning });
  }

  begin(row: LedgerBegin): number | undefined {
    if (!this.#hasRoom()) return undefined;
    const mark = this.#rows.begin(row);
    this.#gathered();
    return mark;
  }
  /** Joins the row that began, where it has not been handed over yet. */
  end(row: LedgerEnd): void {
    if (!this.#rows.has(row) && !this.#hasRoom()) return;
    if (row.bodies === undefined) this.#rows.end(row);
    else {
      const { request, response, truncated } = row.bodies;
      const place = this.#bodies.push({
        truncated,
        ...(request && { request }),
        ...(response && { response }),
      });
      this.#rows.end(row, place - 1);
    }
    this.#gathered();
  }
  get isFailing(): boolean {
    return this.#failing !== undefined;
  }
  get isFlushed(): boolean {
    return this.#settings.synchronous === "full";
  }
  beginning(exchangeId: string): LedgerBegin | undefined {
    return this.#rows.beginning(exchangeId);
  }
  rowsWritten(): Promise<void> | undefined {
    return this.#onTheWay === 0 ? undefined : this.flush();
  }
  allow(holder: string, journal: number, asks: readonly AllowanceAsk[]): Promise<readonly AllowanceAnswer[]> {
    return this.#ask({ kind: "allow", holder, journal, asks }) as Promise<readonly AllowanceAnswer[]>;
  }
  async fold(holder: string, journal: number, spent: readonly WindowAmount[]): Promise<void> {
    await this.#ask({ kind: "fold", holder, journal, spent });
  }
  async leave(holder: string): Promise<void> {
    await this.#ask({ kind: "leave", holder });
  }
  async settleLeft(id: string, spent: number, at: number): Promise<void> {
    await this.#ask({ kind: "settle", id, spent, at });
  }
  used(holder: string, windows: readonly BudgetWindow[]): Promise<readonly number[]> {
    return this.#ask({ kind: "used", holder, windows }) as Promise<readonly number[]>;
  }
  /** Writes a decision with the rows that come; it is not counted among them, since nobody's account lacks it. */
  decide(decision: DecisionRow): void {
    if (this.#operations.length >= MAX_ON_THE_WAY || this.#isClosing) return;
    this.#isUsed = true;
    this.#operations.push(JSON.stringify({ kind: "decide", decision } satisfies Operation));
    this.#timer ??= setTimeout(this.#handOver, GATHER_MS);
  }
  /** As {@link decide}: an estimate that lacks a request is an estimate. */
  trial(trial: LedgerTrial): void {
    if (this.#operations.length >= MAX_ON_THE_WAY || this.#isClosing) return;
    this.#isUsed = true;
    this.#operations.push(JSON.stringify({ kind: "trial", trial } satisfies Operation));
    this.#timer ??= setTimeout(this.#handOver, GATHER_MS);
  }
  /** Rejects where the database cannot be read. */
  recall(): Promise<Recalled> {
    return this.#ask({ kind: "recall" }) as Promise<Recalled>;
  }
  findDecision(book: string, key: string): Promise<string | undefined> {
    return this.#ask({ kind: "decided", book, key }) as Promise<string | undefined>;
  }
  async flush(): Promise<void> {
    if (this.#worker === undefined) return;
    await this.#ask({ kind: "flush" });
  }

  /** Writes what there is. Resolves when the database is closed, or did not close in time. */
  async close(): Promise<void> {
    this.#isClosing = true;
    clearTimeout(this.#restart);
    this.#handOver();
    const worker = this.#worker;
    if (worker !== undefined) {
      const closed = new Promise<void>((resolve) => {
        this.#closed = resolve;
      });
      this.#post({ kind: "close" });
      const late = setTimeout(() => {
        this.#log.error({ rows: this.#onTheWay }, "the ledger did not close in time");
        this.#closed?.();
      }, CLOSE_MS);
      await closed;
      clearTimeout(late);
      await worker.terminate();
    }
    this.#rejectAll("the ledger is closed");
  }

  /** Whether a row can be taken; one that cannot is lost. */
  #hasRoom(): boolean {
    if (this.#onTheWay + this.#rows.count < MAX_ON_THE_WAY && !this.#isClosing) return true;
    this.#lost++;
    return false;
  }
  #gathered(): void {
    if (this.#rows.count >= GATHER_ROWS) this.#soon ??= setImmediate(this.#handOver);
    this.#timer ??= setTimeout(this.#handOver, GATHER_MS);
  }
  #ask(asked: Asked): Promise<unknown> {
    if (this.#worker === undefined || this.#isClosing)
      return Promise.reject(new TokenmanError("TM_LEDGER_UNAVAILABLE", "the ledger's writer does not run"));
    if (!QUESTIONS.has(asked.kind)) this.#isUsed = true;
    return new Promise((resolve, reject) => {
      const call = ++this.#lastCall;
      const timer = setTimeout(() => {
        this.#calls.delete(call);
        reject(
          new TokenmanError("TM_LEDGER_UNAVAILABLE", `the ledger did not answer within ${ANSWER_MS} ms`),
        );
      }, ANSWER_MS);
      this.#calls.set(call, { resolve, reject, timer });
      this.#operations.push(JSON.stringify({ ...asked, call }));
      // Nobody's request waits for a settlement: it goes with the rows.
      if (asked.kind === "settle") this.#timer ??= setTimeout(this.#handOver, GATHER_MS);
      else this.#soon ??= setImmediate(this.#handOver);
    });
  }
  readonly #handOver = (): void => {
    clearTimeout(this.#timer);
    clearImmediate(this.#soon);
    this.#timer = undefined;
    this.#soon = undefined;
    if (this.#rows.count === 0 && this.#operations.length === 0) return;
    if (this.#worker === undefined) {
      // Between a writer's crash and the next one rows wait here; `#hasRoom` bounds them.
      if (!this.#isClosing) this.#timer = setTimeout(this.#handOver, RESTART_MS);
      return;
    }
    if (this.#rows.count > 0) this.#isUsed = true;
    this.#onTheWay += this.#rows.count;
    const batch: Batch = { rows: this.#rows.take(), operations: this.#operations, bodies: this.#bodies };
    this.#operations = [];
    this.#bodies = [];
    this.#post({ kind: "batch", batch }, batch.rows === undefined ? [] : [batch.rows.cells.buffer]);
  };
  #post(message: ToWriter, moved: readonly ArrayBuffer[] = []): void {
    this.#worker?.postMessage(message, moved);
  }

  #start(): Promise<void> {
    return new Promise((resolve, reject) => {
      const worker = new Worker(new URL("./writer-worker.ts", import.meta.url), {
        workerData: this.#settings,
        name: "ledger writer",
        // Its work is small batches; a small young generation keeps its share of the memory small.
        resourceLimits: { maxYoungGenerationSizeMb: 8 },
      });
      this.#worker = worker;
      worker.on("message", (message: FromWriter) => {
        if (message.kind !== "open") this.#receive(message);
        else if (message.error === undefined) resolve();
        else {
          this.#isClosing = true;
          reject(asError(message.error));
        }
      });
      worker.on("error", (cause) => {
        this.#log.error({ err: cause }, "the ledger's writer failed");
        reject(new TokenmanError("TM_LEDGER_UNAVAILABLE", "the ledger's writer failed", { cause }));
      });
      worker.on("exit", () => this.#ended(worker));
    });
  }
  #receive(message: Exclude<FromWriter, { readonly kind: "open" }>): void {
    switch (message.kind) {
      case "answer": {
        const call = this.#calls.get(message.call);
        if (call === undefined) return;
        this.#calls.delete(message.call);
        clearTimeout(call.timer);
        if (message.error === undefined) call.resolve(message.value);
        else call.reject(asError(message.error));
        return;
      }
      case "done":
        this.#onTheWay -= message.written + message.lost;
        this.#lost += message.lost;
        return;
      case "state":
        this.#failing = message.failing;
        return;
      case "log":
        this.#log[message.level](message.facts, message.message);
        return;
      case "closed":
        this.#closed?.();
    }
  }
  /** A writer that dies takes with it what it had not written; another one takes over. */
  #ended(worker: Worker): void {
    if (this.#worker !== worker) return;
    this.#worker = undefined;
    this.#closed?.();
    if (this.#isClosing) return;
    this.#rows.again();
    this.#lost += this.#onTheWay;
    this.#log.error({ lost: this.#onTheWay }, "the ledger's writer ended; another one is started");
    this.#onTheWay = 0;
    this.#failing = "the writer ended";
    this.#rejectAll("the ledger's writer ended");
    this.#restart = setTimeout(() => {
      this.#start().then(
        () => {
          this.#failing = undefined;
        },
        () => undefined,
      );
    }, RESTART_MS);
  }
  #rejectAll(reason: string): void {
    for (const { reject, timer } of this.#calls.values()) {
      clearTimeout(timer);
      reject(new TokenmanError("TM_LEDGER_UNAVAILABLE", reason));
    }
    this.#calls.clear();
  }
}

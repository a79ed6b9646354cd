import type { DatabaseSync } from "node:sqlite";
import { TokenmanError } from "@tokenman/plugin-sdk";
import { Boots } from "./boots.ts";
import { Budget, type Holder } from "./budget.ts";
import { DecisionRows } from "./decision-rows.ts";
import { Dictionary } from "./dictionary.ts";
import type { FromWriter, Operation, Tuning, WriterSettings } from "./messages.ts";
import { moveAside, openForWriting, synchronousPragma } from "./open.ts";
import { removeOrphans } from "./orphans.ts";
import { pruneSome, shrinkSome } from "./prune.ts";
import { eachRow, type RowOperation, RowReceiver, type RowsOperation } from "./received-rows.ts";
import { Rollup } from "./rollup.ts";
import { RowPacker } from "./row-packer.ts";
import { Rows } from "./rows.ts";
import type { Migration } from "./schema.ts";
import { messageOf, type Trouble, troubleOf } from "./sqlite-error.ts";
import { Trials } from "./trials.ts";
import { wireError } from "./wire-error.ts";

/** How long one commit waits for another process that writes. */
const BUSY_MS = 1_000;
/** Rows kept for a disk that may have room again; older ones are given up. */
const MAX_WAITING = 2_000;
const MAX_JUMP_MS = 3_600_000;

/** What is written: rows, in batches or one by one, or what else there is to do. */
export type Work = Operation | RowOperation | RowsOperation;

export interface WriterOptions extends WriterSettings {
  readonly migrations?: readonly Migration[];
  readonly tell: (message: FromWriter) => void;
}

interface Tables {
  readonly db: DatabaseSync;
  readonly texts: Dictionary;
  readonly rollup: Rollup;
  readonly rows: Rows;
  readonly budget: Budget;
  readonly boots: Boots;
  readonly decisions: DecisionRows;
  readonly trials: Trials;
}

/**
 * The one writer: takes operations and commits them in groups. What cannot be written waits, in bounded number, while
 * traffic goes on; reservations never wait for a disk, they are refused. Synchronous: lives in a thread of its own.
 */
export class Writer {
  readonly #options: WriterOptions;
  readonly #tell: (message: FromWriter) => void;
  #tuning: Tuning;
  #tables: Tables | undefined;
  #waiting: Work[] = [];
  #failing: string | undefined;

  constructor(options: WriterOptions) {
    this.#options = options;
    this.#tell = options.tell;
    this.#tuning = options;
  }

  /** Opens the database. Throws TM_LEDGER_SCHEMA; any other failure leaves the writer failing, and it tries again. */
  open(): void {
    try {
      this.#open();
    } catch (cause) {
      if (cause instanceof TokenmanError) throw cause;
      this.#fail(cause);
    }
  }
  get waiting(): number {
    return this.#waiting.length;
  }
  get failing(): boolean {
    return this.#failing !== undefined;
  }
  tune(tuning: Tuning): void {
    this.#tuning = tuning;
    this.#tables?.db.exec(synchronousPragma(tuning.synchronous));
  }

  take(work: readonly Work[]): void {
    for (const each of work) this.#waiting.push(each);
  }

  /** Commits all that waits. Afterwards nothing that has a caller waits any more. */
  commit(): void {
    if (this.#waiting.length === 0) return;
    try {
      if (this.#tables === undefined) this.#open();
      this.#commitAll(this.#waiting);
      this.#recover();
    } catch (cause) {
      const trouble = troubleOf(cause);
      if (trouble === "statement") this.#commitOneByOne();
      else if (trouble !== "corrupt" || !this.#startAnew(cause)) this.#postpone(cause, trouble);
    }
  }

  /** What has to be done now and then: sign of life, rows of the dead, what is too old. True: call again soon. */
  tend(): boolean {
    const tables = this.#tables;
    if (tables === undefined) {
      this.commit();
      return false;
    }
    try {
      tables.boots.heartbeat();
      const interrupted = this.#transaction(tables, () => {
        endDeadHolders(tables, undefined);
        return tables.boots.interruptDead(tables.rollup);
      });
      if (interrupted > 0)
        this.#log(
          "info",
          { interrupted },
          "requests that a process left open when it died are marked interrupted",
        );
      return interrupted > 0;
    } catch (cause) {
      this.#log("warn", { err: messageOf(cause) }, "the ledger could not be tended");
      return false;
    }
  }
  /** Removes a batch of what is too old. True: there may be more. */
  prune(): boolean {
    if (this.#tables === undefined) return false;
    const { db, texts } = this.#tables;
    try {
      const more = pruneSome(db, this.#tuning.retention, soberNow());
      texts.forget();
      if (!more) {
        shrinkSome(db);
        removeOrphans(db, this.#options.file, soberNow());
      }
      return more;
    } catch (cause) {
      this.#log("warn", { err: messageOf(cause) }, "old requests could not be removed from the ledger");
      return false;
    }
  }
  /** Writes what there is, gives up what cannot be written, and closes. */
  close(): void {
    this.commit();
    if (this.#waiting.length > 0) {
      const lost = rowsOf(this.#waiting);
      this.#giveUp(lost);
      this.#log("error", { lost }, "rows of the ledger could not be written before the end");
      this.#waiting = [];
    }
    const tables = this.#tables;
    this.#tables = undefined;
    if (tables === undefined) return;
    try {
      tables.boots.ended();
      // Only here: on millions of rows it takes longer than a reservation may wait.
      tables.db.exec("PRAGMA analysis_limit = 100; PRAGMA optimize");
    } catch (cause) {
      this.#log("warn", { err: messageOf(cause) }, "the end could not be noted in the ledger");
    }
    tables.db.close();
  }

  #open(): void {
    const { file, bootId, migrations } = this.#options;
    const { synchronous } = this.#tuning;
    const { db, setAside } = openForWriting({
      file,
      busyMs: BUSY_MS,
      synchronous,
      ...(migrations !== undefined && { migrations }),
    });
    try {
      if (setAside !== undefined) this.#sayAside(setAside);
      const boots = new Boots(db, bootId);
      const texts = new Dictionary(db);
      const rollup = new Rollup(db);
      const rows = new Rows(db, texts, rollup, boots.id);
      this.#tables = {
        db,
        texts,
        rollup,
        rows,
        budget: new Budget(db, file, rollup),
        boots,
        decisions: new DecisionRows(db),
        trials: new Trials(db),
      };
    } catch (cause) {
      db.close();
      throw cause;
    }
  }

  #transaction<T>(tables: Tables, run: () => T): T {
    const { db, texts, rollup, rows, budget } = tables;
    db.exec("BEGIN IMMEDIATE");
    // Another process may have written since.
    rows.forget();
    try {
      const value = run();
      rollup.write();
      db.exec("COMMIT");
      budget.committed();
      return value;
    } catch (cause) {
      // Some errors, a full disk among them, have rolled it back already.
      if (db.isTransaction) db.exec("ROLLBACK");
      texts.forget();
      rollup.forget();
      budget.forget();
      throw cause;
    }
  }
  #commitAll(work: readonly Work[]): void {
    const tables = this.#tables!;
    const answers: FromWriter[] = [];
    const rows = rowsOf(work);
    this.#transaction(tables, () => {
      for (const each of work) {
        const value = apply(tables, each);
        if ("call" in each) answers.push({ kind: "answer", call: each.call, value });
      }
    });
    this.#waiting = this.#waiting.slice(work.length);
    for (const answer of answers) this.#tell(answer);
    if (rows > 0) this.#tell({ kind: "done", written: rows, lost: 0 });
  }
  /** One of them cannot be written, whatever the disk does: it must not take the others with it. */
  #commitOneByOne(): void {
    this.#waiting = this.#waiting.flatMap(oneByOne);
    for (const each of [...this.#waiting]) {
      try {
        this.#commitAll([each]);
      } catch (cause) {
        const trouble = troubleOf(cause);
        if (trouble !== "statement") {
          this.#postpone(cause, trouble);
          return;
        }
        this.#waiting.shift();
        this.#log("error", { err: messageOf(cause), operation: each.kind }, "the ledger refuses a row");
        if ("call" in each) this.#refuse(each.call, cause);
        if (isRow(each)) this.#giveUp(1);
      }
    }
  }
  /** Keeps rows for later; whoever waits for an answer gets a refusal. */
  #postpone(cause: unknown, trouble: Trouble): void {
    this.#fail(cause);
    const kept: Work[] = [];
    const flushed: number[] = [];
    for (const each of this.#waiting.flatMap(oneByOne)) {
      if (each.kind === "flush") flushed.push(each.call);
      // A settlement must not be lost: it is answered when it is written.
      else if (each.kind === "settle") kept.push(each);
      else if ("call" in each) this.#refuse(each.call, cause);
      // Bodies are the first to go where there is no room.
      else kept.push(isRow(each) ? { ...each, bodies: undefined } : each);
    }
    const over = Math.max(0, kept.length - MAX_WAITING);
    for (const each of kept.slice(0, over)) if ("call" in each) this.#refuse(each.call, cause);
    if (over > 0) this.#giveUp(kept.slice(0, over).filter(isRow).length);
    this.#waiting = kept.slice(over);
    // Only now it is known what was given up.
    for (const call of flushed) this.#tell({ kind: "answer", call });
    if (trouble !== "busy") this.#closeBroken();
  }
  /** Sets a database aside that turned out damaged, and goes on with a new one. */
  #startAnew(cause: unknown): boolean {
    this.#closeBroken();
    try {
      this.#log("error", { err: messageOf(cause) }, "the ledger's file is damaged");
      this.#sayAside(moveAside(this.#options.file));
      this.#open();
      this.#commitAll(this.#waiting);
      this.#recover();
      return true;
    } catch (second) {
      this.#log("error", { err: messageOf(second) }, "no new ledger could be begun");
      return false;
    }
  }
  #closeBroken(): void {
    try {
      this.#tables?.db.close();
    } catch {
      // What is broken may not close; it is let go of all the same.
    }
    this.#tables = undefined;
  }
  #fail(cause: unknown): void {
    const said = messageOf(cause);
    if (this.#failing === said) return;
    this.#failing = said;
    this.#tell({ kind: "state", failing: said });
    this.#log(
      "error",
      { err: said, file: this.#options.file },
      "the ledger cannot be written; requests go on, and the newest rows wait for it",
    );
  }
  #recover(): void {
    if (this.#failing === undefined) return;
    this.#failing = undefined;
    this.#tell({ kind: "state", failing: undefined });
    this.#log("info", {}, "the ledger can be written again");
  }
  #refuse(call: number, cause: unknown): void {
    this.#tell({ kind: "answer", call, error: wireError(cause) });
  }
  #giveUp(rows: number): void {
    this.#tell({ kind: "done", written: 0, lost: rows });
  }
  #sayAside(file: string): void {
    this.#log(
      "error",
      { file },
      "the ledger's file could not be read; it was set aside, and a new one begun",
    );
  }
  #log(level: "info" | "warn" | "error", facts: object, message: string): void {
    this.#tell({ kind: "log", level, facts, message });
  }
}

/** A clock that jumps ahead while TokenMan runs must not make everything old. */
function soberNow(): number {
  return Math.min(Date.now(), performance.timeOrigin + performance.now() + MAX_JUMP_MS);
}

function isRow(work: Work): work is RowOperation {
  return work.kind === "begin" || work.kind === "end";
}
function oneByOne(work: Work): readonly Work[] {
  return work.kind === "rows" ? eachRow(work) : [work];
}
function rowsOf(work: readonly Work[]): number {
  let count = 0;
  for (const each of work)
    count += each.kind === "rows" ? each.begun.length + each.ended.length : isRow(each) ? 1 : 0;
  return count;
}

function apply(tables: Tables, work: Work): unknown {
  const { rows, budget, boots, decisions, trials } = tables;
  switch (work.kind) {
    case "rows":
      rows.all(work);
      return undefined;
    case "begin":
      rows.begin(work.rows, work.at, work.bodies);
      return undefined;
    case "end":
      rows.end(work.rows, work.at, work.bodies);
      return undefined;
    case "allow":
      endDeadHolders(tables, work.holder);
      return budget.allow(work.holder, boots.id, work.journal, work.asks);
    case "fold":
      budget.fold(work.holder, work.journal, work.spent);
      return undefined;
    case "leave":
      endHolders(
        tables,
        budget.holders(undefined).filter(({ id }) => id === work.holder),
      );
      return undefined;
    case "settle":
      budget.settle(work.id, work.spent, work.at);
      return undefined;
    case "used":
      endDeadHolders(tables, work.holder);
      return budget.used(work.windows);
    case "trial":
      trials.add(work.trial);
      return undefined;
    case "decide":
      decisions.put(work.decision);
      return undefined;
    case "recall":
      return decisions.recall();
    case "decided":
      return decisions.find(work.book, work.key);
    case "flush":
      return undefined;
  }
}

/** What dead processes were allowed and have not spent is there again; their exchanges get the rows that they lack. */
function endDeadHolders(tables: Tables, own: string | undefined): void {
  const { budget, boots } = tables;
  const others = budget.holders(own);
  // Of this process, one that was closed without a word is over, too.
  if (others.length > 0)
    endHolders(
      tables,
      others.filter(({ boot }) => (own !== undefined && boot === boots.id) || !boots.isAlive(boot)),
    );
}
function endHolders({ db, texts, rollup, rows, budget }: Tables, holders: readonly Holder[]): void {
  for (const holder of holders) {
    const begins = budget.leave(holder);
    if (begins.length === 0) continue;
    const packer = new RowPacker();
    for (const begin of begins) packer.begin(begin);
    new Rows(db, texts, rollup, holder.boot).all(new RowReceiver().receive(packer.take()!, []));
    // Rows have come that it did not add.
    rows.forget();
  }
}

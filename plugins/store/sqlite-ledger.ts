import { randomUUID } from "node:crypto";
import { rmSync } from "node:fs";
import {
  type BudgetWindow,
  type Decisions,
  isThere,
  type Ledger,
  type LedgerBegin,
  type LedgerDimension,
  type LedgerEnd,
  type LedgerEvent,
  type LedgerFigures,
  type LedgerFilter,
  type LedgerGroup,
  type LedgerOnly,
  type LedgerPage,
  type LedgerPoint,
  type LedgerRange,
  type LedgerRecord,
  type LedgerSavings,
  type LedgerState,
  type LedgerTrial,
  type Logger,
  type Reservation,
  type ReserveResult,
} from "@tokenman/plugin-sdk";
import { storedDecisions } from "./decisions.ts";
import type { Tuning, WriterSettings } from "./messages.ts";
import { Readers } from "./readers.ts";
import { Reserver } from "./reserver.ts";
import { WriterThread } from "./writer-thread.ts";

/** The ledger in SQLite: one thread that writes, a few that read. */
export class SqliteLedger implements Ledger {
  readonly #writer: WriterThread;
  readonly #readers: Readers;
  /** The file, where there was none before. */
  readonly #made: string | undefined;
  readonly #reserver: Reserver;
  /** In the same database, by the same writer. */
  readonly decisions: Decisions;
  readonly #watchers = new Set<(event: LedgerEvent) => void>();

  private constructor(writer: WriterThread, { file }: WriterSettings, made: string | undefined) {
    this.#writer = writer;
    this.#readers = new Readers(file);
    this.#made = made;
    this.#reserver = new Reserver(writer, file, randomUUID());
    this.decisions = storedDecisions(writer);
  }

  /** Opens or makes the database. Rejects with TM_LEDGER_SCHEMA; a disk that cannot be written is a state, not an error. */
  static async open(settings: WriterSettings, log: Logger): Promise<SqliteLedger> {
    const made = isThere(settings.file) ? undefined : settings.file;
    return new SqliteLedger(await WriterThread.start(settings, log), settings, made);
  }
  /** `forget`: a database that was made here, and never used, is removed again. */
  async close({ forget = false }: { readonly forget?: boolean } = {}): Promise<void> {
    await this.#reserver.close();
    await Promise.all([this.#writer.close(), this.#readers.close()]);
    if (!forget || this.#made === undefined || this.#writer.isUsed) return;
    for (const suffix of ["-wal", "-shm", ""]) rmSync(this.#made + suffix, { force: true });
  }

  get state(): LedgerState {
    return this.#writer.state;
  }
  tune(tuning: Tuning): void {
    this.#writer.tune(tuning);
  }

  begin(row: LedgerBegin): number | undefined {
    const mark = this.#writer.begin(row);
    if (this.#watchers.size > 0) for (const watch of this.#watchers) watch({ kind: "begin", row });
    return mark;
  }
  end(row: LedgerEnd): void {
    this.#writer.end(row);
    if (this.#watchers.size > 0) for (const watch of this.#watchers) watch({ kind: "end", row });
  }
  trial(row: LedgerTrial): void {
    this.#writer.trial(row);
  }
  reserve(reservation: Reservation): Promise<ReserveResult> {
    return this.#reserver.reserve(reservation);
  }
  settle(id: string, spentNanoUsd: number, at: number): Promise<void> {
    return this.#reserver.settle(id, spentNanoUsd, at);
  }
  used(windows: readonly BudgetWindow[]): Promise<readonly number[]> {
    return this.#reserver.used(windows);
  }
  flush(): Promise<void> {
    return this.#writer.flush();
  }
  watch(watcher: (event: LedgerEvent) => void): () => void {
    // A function of its own, so that the same watcher can be there twice.
    const own = (event: LedgerEvent): void => watcher(event);
    this.#watchers.add(own);
    return () => void this.#watchers.delete(own);
  }

  page(
    filter: LedgerFilter,
    options?: { readonly cursor?: string; readonly limit?: number },
  ): Promise<LedgerPage> {
    return this.#readers.ask("page", filter, options) as Promise<LedgerPage>;
  }
  async request(id: string): Promise<LedgerRecord | undefined> {
    const found = (await this.#readers.ask("request", id)) as LedgerRecord | undefined;
    // Buffers arrive from another thread as plain byte arrays.
    if (found?.bodies === undefined) return found;
    const { request, response, truncated } = found.bodies;
    return { ...found, bodies: { request: buffer(request), response: buffer(response), truncated } };
  }
  totals(range: LedgerRange, only?: LedgerOnly): Promise<LedgerFigures & LedgerRange> {
    return this.#readers.ask("totals", range, only) as Promise<LedgerFigures & LedgerRange>;
  }
  history(range: LedgerRange, stepMs: number, only?: LedgerOnly): Promise<readonly LedgerPoint[]> {
    return this.#readers.ask("history", range, stepMs, only) as Promise<readonly LedgerPoint[]>;
  }
  between(bounds: readonly number[], only?: LedgerOnly): Promise<readonly LedgerPoint[]> {
    return this.#readers.ask("between", bounds, only) as Promise<readonly LedgerPoint[]>;
  }
  groups(
    dimension: LedgerDimension,
    range: LedgerRange,
    options?: LedgerOnly & { readonly limit?: number },
  ): Promise<readonly LedgerGroup[]> {
    return this.#readers.ask("groups", dimension, range, options) as Promise<readonly LedgerGroup[]>;
  }
  savings(range: LedgerRange, only?: Pick<LedgerOnly, "project">): Promise<LedgerSavings> {
    return this.#readers.ask("savings", range, only) as Promise<LedgerSavings>;
  }
  read<T>(sql: string, parameters?: readonly (string | number | bigint | null)[]): Promise<readonly T[]> {
    return this.#readers.ask("read", sql, parameters) as Promise<readonly T[]>;
  }
}

function buffer(bytes: Uint8Array | undefined): Buffer | undefined {
  return bytes === undefined ? undefined : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

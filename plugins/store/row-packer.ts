import type { LedgerAttempt, LedgerBegin, LedgerEnd } from "@tokenman/plugin-sdk";
import {
  BODY_ENDS,
  CACHE,
  codeOf,
  HOOKS,
  ORIGINS,
  OUTCOMES,
  PROMPT_CACHE,
  RESULTS,
  SAVINGS,
  TEXT_KINDS,
  type TextKind,
} from "./codes.ts";
import { NameNumbers } from "./names.ts";
import { ATTEMPT_LENGTH, BEGIN, END, type RowBatch, SAVING_LENGTH, TIMING_LENGTH } from "./row-cells.ts";
import { writeUuid } from "./time-key.ts";

const MAX_ERROR_LENGTH = 500;
/** Beyond them a plugin that loops would fill the disk. */
const MAX_TIMINGS = 200;
const MAX_SAVINGS = 100;
const MAX_ATTEMPTS = 1_000;
const MAX_SAFE = Number.MAX_SAFE_INTEGER;
const NONE = Number.NaN;

const kind = (name: TextKind): number => TEXT_KINDS.indexOf(name);
const PROJECT = kind("project");
const SESSION = kind("session");
const CLIENT = kind("client");
const METHOD = kind("method");
const PATH = kind("path");
const DIALECT = kind("dialect");
const MODEL = kind("model");
const PROVIDER = kind("provider");
const CODE = kind("code");
const PLUGIN = kind("plugin");
const TIER = kind("tier");
const REASON = kind("reason");

/**
 * Puts rows into the cells in which they travel. One that ends before it is handed over becomes cells when it ends, as a
 * whole; of one that is still open its beginning does when the others go.
 */
export class RowPacker {
  #cells = new Float64Array(8_192);
  #used = 0;
  /** What has begun, in its order: the beginning while it is open, then where it is among the cells. */
  #begun: (LedgerBegin | number)[] = [];
  /** The mark of the first of them; marks count on, so that those of rows that went before mean none. */
  #firstMark = 1;
  #ended: number[] = [];
  #texts: string[] = [];
  readonly #names = new NameNumbers();

  /** How many rows are here. */
  get count(): number {
    return this.#begun.length + this.#ended.length;
  }

  /** Gives the mark by which its end finds it. */
  begin(row: LedgerBegin): number {
    return this.#firstMark + this.#begun.push(row) - 1;
  }
  /** Whether an exchange that ends has its beginning here, and becomes one row with it. */
  has(row: LedgerEnd): boolean {
    return this.#beginningOf(row) !== undefined;
  }
  #beginningOf({ mark, exchangeId }: LedgerEnd): LedgerBegin | undefined {
    if (mark === undefined || mark < this.#firstMark) return undefined;
    const begun = this.#begun[mark - this.#firstMark];
    return typeof begun === "object" && begun.exchangeId === exchangeId ? begun : undefined;
  }
  /** The beginning of an exchange that is open and has not been handed over; the newest are looked at first. */
  beginning(exchangeId: string): LedgerBegin | undefined {
    for (let index = this.#begun.length - 1; index >= 0; index--) {
      const row = this.#begun[index]!;
      if (typeof row === "object" && row.exchangeId === exchangeId) return row;
    }
    return undefined;
  }
  /** `bodies` is their place in the batch; NaN for none. */
  end(row: LedgerEnd, bodies: number = NONE): void {
    const { outcome, attempts, savings, timings } = row;
    const attemptCount = Math.min(attempts.length, MAX_ATTEMPTS);
    const savingCount = Math.min(savings.length, MAX_SAVINGS);
    const timingCount = Math.min(timings.length, MAX_TIMINGS);
    const length =
      END.LENGTH + attemptCount * ATTEMPT_LENGTH + savingCount * SAVING_LENGTH + timingCount * TIMING_LENGTH;
    let at: number;
    const begin = this.#beginningOf(row);
    if (begin !== undefined) {
      const began = this.#take(BEGIN.LENGTH + length);
      at = began + BEGIN.LENGTH;
      this.#begin(begin, began, at);
      this.#begun[row.mark! - this.#firstMark] = began;
    } else {
      at = this.#take(length);
      writeUuid(row.exchangeId, this.#cells, at + END.ID);
      this.#ended.push(at);
    }
    const cells = this.#cells;
    const names = this.#names;
    cells[at + END.BODIES] = bodies;
    cells[at + END.OUTCOME] = codeOf(OUTCOMES, outcome.kind) ?? 0;
    cells[at + END.STATUS] = whole(outcome.status, 0);
    cells[at + END.ORIGIN] = codeOf(ORIGINS, outcome.origin) ?? NONE;
    cells[at + END.CODE] = names.of(CODE, outcome.code);
    cells[at + END.PROVIDER] = names.of(PROVIDER, row.provider);
    cells[at + END.CACHE] = codeOf(CACHE, row.cache) ?? NONE;
    cells[at + END.DURATION_US] = micros(outcome.durationMs);
    cells[at + END.FIRST_BYTE_US] = micros(outcome.firstByteMs);
    cells[at + END.BYTES_SENT] = whole(outcome.bytesSent);
    cells[at + END.ERROR] = this.#text(row.error);
    cells[at + END.ATTEMPTS] = attemptCount;
    cells[at + END.SAVINGS] = savingCount;
    cells[at + END.TIMINGS] = timingCount;
    cells[at + END.PROMPT_CACHE] = codeOf(PROMPT_CACHE, row.promptCache) ?? NONE;
    let next = at + END.LENGTH;
    for (let index = 0; index < attemptCount; index++, next += ATTEMPT_LENGTH)
      this.#attempt(attempts[index]!, next);
    for (let index = 0; index < savingCount; index++, next += SAVING_LENGTH) {
      const { kind, plugin, tokens, nanoUsd } = savings[index]!;
      cells[next] = codeOf(SAVINGS, kind) ?? 0;
      cells[next + 1] = names.of(PLUGIN, plugin);
      cells[next + 2] = whole(tokens);
      cells[next + 3] = whole(nanoUsd);
    }
    for (let index = 0; index < timingCount; index++, next += TIMING_LENGTH) {
      const { plugin, hook, durationMs } = timings[index]!;
      cells[next] = names.of(PLUGIN, plugin);
      cells[next + 1] = HOOKS.indexOf(hook);
      cells[next + 2] = Math.round(durationMs * 1_000);
    }
  }

  /** All that is here, to hand over; undefined where there is nothing. */
  take(): RowBatch | undefined {
    if (this.count === 0) return undefined;
    const begun: number[] = [];
    for (const row of this.#begun) {
      if (typeof row === "number") {
        begun.push(row);
        continue;
      }
      const at = this.#take(BEGIN.LENGTH);
      this.#begin(row, at, 0);
      begun.push(at);
    }
    const batch: RowBatch = {
      cells: this.#cells.slice(0, this.#used),
      begun,
      ended: this.#ended,
      texts: this.#texts,
      names: this.#names.take(),
    };
    this.#used = 0;
    this.#firstMark += this.#begun.length;
    this.#begun = [];
    this.#ended = [];
    this.#texts = [];
    return batch;
  }
  /** Whoever has taken batches is gone: the next one is for somebody who knows no names. */
  again(): void {
    this.#names.again();
  }

  /** `end` is where its end is; 0 for not yet. */
  #begin(row: LedgerBegin, at: number, end: number): void {
    const cells = this.#cells;
    const names = this.#names;
    writeUuid(row.exchangeId, cells, at + BEGIN.ID);
    cells[at + BEGIN.LINK] = end;
    cells[at + BEGIN.PROJECT] = names.of(PROJECT, row.project);
    cells[at + BEGIN.SESSION] = names.of(SESSION, row.session);
    cells[at + BEGIN.CLIENT] = names.of(CLIENT, row.client);
    cells[at + BEGIN.METHOD] = names.of(METHOD, row.method);
    cells[at + BEGIN.PATH] = names.of(PATH, row.path);
    cells[at + BEGIN.DIALECT] = names.of(DIALECT, row.dialect);
    cells[at + BEGIN.MODEL] = names.of(MODEL, row.model);
    cells[at + BEGIN.STREAM] = row.stream ? 1 : 0;
  }
  #attempt(attempt: LedgerAttempt, at: number): void {
    const { result, usage, cost } = attempt;
    const cells = this.#cells;
    const names = this.#names;
    const reply = result.kind === "reply" ? result : undefined;
    const error = result.kind === "error" ? result : undefined;
    const skipped = result.kind === "skipped" ? result : undefined;
    // In the order of ATTEMPT_COLUMNS.
    let next = at;
    cells[next++] = attempt.number;
    cells[next++] = attempt.at;
    cells[next++] = names.of(PROVIDER, attempt.provider);
    cells[next++] = names.of(MODEL, attempt.model);
    cells[next++] = codeOf(RESULTS, result.kind) ?? 0;
    cells[next++] = reply === undefined ? NONE : (codeOf(BODY_ENDS, reply.body) ?? NONE);
    cells[next++] = error === undefined ? NONE : error.bytesSent ? 1 : 0;
    cells[next++] = whole(reply?.status);
    cells[next++] = names.of(CODE, error?.code ?? skipped?.by);
    cells[next++] = this.#text(error?.message ?? skipped?.reason);
    cells[next++] = micros(attempt.headMs);
    cells[next++] = micros(attempt.firstByteMs);
    cells[next++] = micros(attempt.durationMs, 0);
    cells[next++] = names.of(MODEL, usage?.model);
    cells[next++] = names.of(TIER, usage?.serviceTier);
    cells[next++] = usage === undefined ? NONE : usage.complete ? 1 : 0;
    cells[next++] = usage === undefined ? NONE : usage.source === "provider" ? 1 : 0;
    cells[next++] = whole(usage?.inputTokens);
    cells[next++] = whole(usage?.cacheReadTokens);
    cells[next++] = whole(usage?.cacheWrite5mTokens);
    cells[next++] = whole(usage?.cacheWrite1hTokens);
    cells[next++] = whole(usage?.outputTokens);
    cells[next++] = whole(usage?.reasoningTokens);
    cells[next++] =
      usage === undefined || isEmpty(usage.serverTools)
        ? NONE
        : this.#texts.push(JSON.stringify(usage.serverTools)) - 1;
    cells[next++] = whole(cost?.input);
    cells[next++] = whole(cost?.cacheRead);
    cells[next++] = whole(cost?.cacheWrite5m);
    cells[next++] = whole(cost?.cacheWrite1h);
    cells[next++] = whole(cost?.output);
    cells[next++] = whole(cost?.serverTools);
    cells[next++] = whole(cost?.total);
    cells[next++] = attempt.estimated ? 1 : 0;
    cells[next++] = names.of(REASON, attempt.unpriced);
  }
  #text(text: string | undefined): number {
    if (text === undefined || text === "") return NONE;
    return this.#texts.push(text.slice(0, MAX_ERROR_LENGTH)) - 1;
  }
  /** Room for so many more cells, and where they begin. */
  #take(count: number): number {
    const at = this.#used;
    this.#used += count;
    if (this.#used > this.#cells.length) {
      const larger = new Float64Array(Math.max(this.#used, this.#cells.length * 2));
      larger.set(this.#cells);
      this.#cells = larger;
    }
    return at;
  }
}

function isEmpty(record: object): boolean {
  for (const _ in record) return false;
  return true;
}

/** A whole number that SQLite and JavaScript both hold exactly; NaN for none. */
function whole(value: number | undefined, otherwise: number = NONE): number {
  if (value === undefined || Number.isNaN(value)) return otherwise;
  // Nearly all of them are small and whole.
  if ((value | 0) === value) return value;
  return Math.max(-MAX_SAFE, Math.min(MAX_SAFE, Math.round(value)));
}

function micros(ms: number | undefined, otherwise: number = NONE): number {
  return ms === undefined || !Number.isFinite(ms) ? otherwise : Math.max(0, Math.round(ms * 1000));
}

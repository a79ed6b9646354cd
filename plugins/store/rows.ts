import type { DatabaseSync, SQLInputValue, StatementSync } from "node:sqlite";
import { constants, zstdCompressSync } from "node:zlib";
import type { LedgerBodies } from "@tokenman/plugin-sdk";
import { ANSWERED, INTERRUPTED, OPEN } from "./codes.ts";
import { ATTEMPT_SUMS, CACHE_FIGURES, OUTCOME_FIGURES, SAVING_FIGURES } from "./counting.ts";
import { DetailWriter } from "./detail.ts";
import type { Dictionary } from "./dictionary.ts";
import { FIGURE, type Figure } from "./figures.ts";
import { Places } from "./places.ts";
import { bodiesAt, type ReceivedRows, type RowsOperation } from "./received-rows.ts";
import type { Rollup, RollupSums } from "./rollup.ts";
import { ATTEMPT_COLUMNS, ATTEMPT_LENGTH, BEGIN, BEGIN_NAMES, END, SAVING_LENGTH } from "./row-cells.ts";
import { msOf } from "./time-key.ts";

/** The bodies of an exchange as they travel to the writer: apart from the rest, which is numbers. */
export type BodyBytes = Pick<LedgerBodies, "truncated"> & {
  readonly request: Uint8Array | undefined;
  readonly response: Uint8Array | undefined;
};

const OPENING = "id, uuid, boot, project, session, client, method, path, dialect, model, stream";
const OPENING_LENGTH = 11;
const OPENING_PROJECT = 3;
const OPENING_MODEL = 9;
const ENDING = ["outcome", "status", "provider", "sent_model", "output", "cost", "detail"];

type Column = (typeof ATTEMPT_COLUMNS)[number][0];
const column = (name: Column): number => ATTEMPT_COLUMNS.findIndex(([each]) => each === name);
const PROVIDER = column("provider");
const MODEL = column("model");
const RESULT = column("result");
const ESTIMATED = column("estimated");
const UNPRICED = column("unpriced");
const OUTPUT = column("output");
const COST = column("cost");
/** The code of a reply among the results. */
const REPLY = 0;
const ATTEMPT_FIGURES: readonly (readonly [number, Figure])[] = ATTEMPT_SUMS.map(([name, figure]) => [
  column(name),
  figure,
]);

const marks = (count: number): string => Array(count).fill("?").join(", ");

/** Writes exchanges: rows, and the rollups that go with them. Within a transaction that the caller holds. */
export class Rows {
  readonly #db: DatabaseSync;
  readonly #texts: Dictionary;
  readonly #rollup: Rollup;
  readonly #boot: number;
  readonly #places: Places;
  readonly #find: StatementSync;
  readonly #begin: StatementSync;
  readonly #end: StatementSync;
  readonly #whole: StatementSync;
  readonly #statements = new Map<string, StatementSync>();
  /** Of the statement that is made ready. One list for each, of its length: lists for each row would be garbage. */
  readonly #wholeValues: SQLInputValue[] = Array(OPENING_LENGTH + ENDING.length).fill(null);
  readonly #beginValues: SQLInputValue[] = Array(OPENING_LENGTH).fill(null);
  readonly #endValues: SQLInputValue[] = Array(ENDING.length + 1).fill(null);
  readonly #details: DetailWriter;

  constructor(db: DatabaseSync, texts: Dictionary, rollup: Rollup, boot: number) {
    this.#db = db;
    this.#texts = texts;
    this.#rollup = rollup;
    this.#boot = boot;
    this.#places = new Places(db);
    this.#find = db.prepare("SELECT id, outcome, project, model, stream FROM request WHERE id = ?");
    this.#begin = db.prepare(
      `INSERT INTO request (${OPENING}, outcome) VALUES (${marks(OPENING_LENGTH)}, ${OPEN})`,
    );
    this.#whole = db.prepare(
      `INSERT INTO request (${OPENING}, ${ENDING.join(", ")}) VALUES (${marks(OPENING_LENGTH + ENDING.length)})`,
    );
    this.#end = db.prepare(
      `UPDATE request SET ${ENDING.map((name) => `${name} = ?`).join(", ")} WHERE id = ?`,
    );
    this.#details = new DetailWriter(texts);
  }

  /** All rows of a batch. */
  all({ rows, begun, ended, bodies }: RowsOperation): void {
    const { cells } = rows;
    for (const at of begun) {
      const link = cells[at + BEGIN.LINK]!;
      this.begin(rows, at, link === 0 ? undefined : bodiesAt(cells[link + END.BODIES]!, bodies));
    }
    for (const at of ended) this.end(rows, at, bodiesAt(cells[at + END.BODIES]!, bodies));
  }

  /**
   * Adds a row, open or, where its end came with it, as a whole. Nothing for an exchange that has one, but for its end.
   */
  begin(rows: ReceivedRows, at: number, bodies: BodyBytes | undefined): void {
    const { cells } = rows;
    const link = cells[at + BEGIN.LINK]!;
    const { own, free, uuid } = this.#places.of(cells, at + BEGIN.ID);
    if (own !== undefined) {
      if (link !== 0) this.#endOf(this.#rowAt(own), rows, link, bodies);
      return;
    }
    const values = link === 0 ? this.#beginValues : this.#wholeValues;
    values[0] = free;
    values[1] = uuid;
    values[2] = this.#boot;
    for (let index = 0; index < BEGIN_NAMES.length; index++)
      values[3 + index] = rows.names.id(cells[at + BEGIN_NAMES[index]![0]]!, this.#texts);
    const stream = cells[at + BEGIN.STREAM]!;
    values[OPENING_LENGTH - 1] = stream;
    if (link === 0) {
      done(this.#begin, values);
      this.#places.taken();
      return;
    }
    const fresh: Found = {
      id: free,
      outcome: OPEN,
      project: values[OPENING_PROJECT] as number,
      model: values[OPENING_MODEL] as number | null,
      stream,
    };
    const answered = this.#answered(rows, link);
    this.#ending(values, OPENING_LENGTH, fresh, rows, link, answered);
    done(this.#whole, values);
    this.#places.taken();
    this.#rest(fresh, rows, link, answered, bodies);
  }

  /** Ends a row. Nothing for one that has ended already, or was never begun. */
  end(rows: ReceivedRows, at: number, bodies: BodyBytes | undefined): void {
    const { own } = this.#places.of(rows.cells, at + END.ID);
    if (own !== undefined) this.#endOf(this.#rowAt(own), rows, at, bodies);
  }
  /** What was known of places may not hold in another transaction. */
  forget(): void {
    this.#places.forget();
  }

  #endOf(found: Found, rows: ReceivedRows, at: number, bodies: BodyBytes | undefined): void {
    if (found.outcome !== OPEN && found.outcome !== INTERRUPTED) return;
    const answered = this.#answered(rows, at);
    const values = this.#endValues;
    this.#ending(values, 0, found, rows, at, answered);
    values[ENDING.length] = found.id;
    done(this.#end, values);
    this.#rest(found, rows, at, answered, bodies);
  }

  /** The provider and the model that an exchange counts for: of the attempt that answered, or of the last one. */
  #answered({ cells, names }: ReceivedRows, at: number): Answered {
    const first = at + END.LENGTH;
    let last = first + (cells[at + END.ATTEMPTS]! - 1) * ATTEMPT_LENGTH;
    if (last < first) return { provider: names.id(cells[at + END.PROVIDER]!, this.#texts), model: null };
    for (let attempt = last; attempt >= first; attempt -= ATTEMPT_LENGTH) {
      if (cells[attempt + RESULT] !== REPLY) continue;
      last = attempt;
      break;
    }
    const provider = cells[at + END.PROVIDER]!;
    return {
      provider: names.id(Number.isNaN(provider) ? cells[last + PROVIDER]! : provider, this.#texts),
      model: names.id(cells[last + MODEL]!, this.#texts),
    };
  }
  /** Puts the values of ENDING, from `place` on. */
  #ending(
    values: SQLInputValue[],
    place: number,
    found: Found,
    rows: ReceivedRows,
    at: number,
    answered: Answered,
  ): void {
    const { cells } = rows;
    const first = at + END.LENGTH;
    const end = first + cells[at + END.ATTEMPTS]! * ATTEMPT_LENGTH;
    values[place] = cells[at + END.OUTCOME]!;
    values[place + 1] = cells[at + END.STATUS]!;
    values[place + 2] = answered.provider;
    values[place + 3] = answered.model === found.model ? null : answered.model;
    values[place + 4] = sumOf(cells, first + OUTPUT, end);
    values[place + 5] = sumOf(cells, first + COST, end);
    values[place + 6] = this.#details.pack(rows, at, msOf(found.id));
  }
  /** What belongs to a row that ends and is not in it, and the sums. */
  #rest(
    found: Found,
    rows: ReceivedRows,
    at: number,
    answered: Answered,
    bodies: BodyBytes | undefined,
  ): void {
    const { id } = found;
    const { cells, texts } = rows;
    const error = cells[at + END.ERROR]!;
    if (!Number.isNaN(error)) this.#insert("failure", ["request", "error"], [id, texts[error] ?? ""]);
    if (bodies !== undefined) {
      this.#insert(
        "body",
        ["request", "sent", "received", "truncated"],
        [id, packed(bodies.request), packed(bodies.response), bodies.truncated ? 1 : 0],
      );
    }
    this.#sumUp(found, rows, at, answered);
  }

  /**
   * The exchange counts for the provider and model that answered it; tokens and money count where they were spent,
   * which for a retried exchange may be several.
   */
  #sumUp(found: Found, { cells, names }: ReceivedRows, at: number, answered: Answered): void {
    const ms = msOf(found.id);
    const { project, model } = found;
    const sums = this.#rollup.of(ms, project, answered.provider ?? 0, answered.model ?? model ?? 0);
    sums.add(FIGURE.requests, 1);
    sums.add(FIGURE.durationUs, known(cells[at + END.DURATION_US]!) ?? 0);
    const outcome = cells[at + END.OUTCOME]!;
    sums.addTo(OUTCOME_FIGURES[outcome], 1);
    // What was refused, or ended otherwise, is counted as that.
    if (outcome === ANSWERED && cells[at + END.STATUS]! >= 400) sums.add(FIGURE.errors, 1);
    if (found.stream === 1) sums.add(FIGURE.streams, 1);
    sums.addTo(CACHE_FIGURES[cells[at + END.CACHE]!], 1);
    const firstByteUs = cells[at + END.FIRST_BYTE_US]!;
    if (!Number.isNaN(firstByteUs)) {
      sums.add(FIGURE.firstBytes, 1);
      sums.add(FIGURE.firstByteUs, firstByteUs);
    }
    // It was counted as interrupted, in the place where it began, while its process was taken for dead.
    if (found.outcome === INTERRUPTED) {
      const place = this.#rollup.of(ms, project, 0, model ?? 0);
      place.add(FIGURE.requests, -1);
      place.add(FIGURE.interrupted, -1);
      place.add(FIGURE.unpriced, -1);
    }
    let next = at + END.LENGTH;
    const attempts = cells[at + END.ATTEMPTS]!;
    const saved = next + attempts * ATTEMPT_LENGTH;
    for (let number = 0; number < cells[at + END.SAVINGS]!; number++) {
      const place = saved + number * SAVING_LENGTH;
      addSaving(sums, cells, place);
      this.#rollup.savings.add(
        ms,
        [project, names.id(cells[place + 1]!, this.#texts) ?? 0, cells[place]!],
        known(cells[place + 2]!) ?? 0,
        known(cells[place + 3]!) ?? 0,
      );
    }
    for (let left = attempts; left > 0; left--, next += ATTEMPT_LENGTH) {
      const provider = names.id(cells[next + PROVIDER]!, this.#texts) ?? 0;
      const own = this.#rollup.of(
        ms,
        project,
        provider,
        names.id(cells[next + MODEL]!, this.#texts) ?? model ?? 0,
      );
      own.add(FIGURE.attempts, 1);
      for (const [place, figure] of ATTEMPT_FIGURES) {
        const value = cells[next + place]!;
        if (!Number.isNaN(value)) own.add(figure, value);
      }
      const cost = cells[next + COST]!;
      if (!Number.isNaN(cost) && cells[next + ESTIMATED] === 1) own.add(FIGURE.costEstimated, cost);
      if (!Number.isNaN(cells[next + UNPRICED])) own.add(FIGURE.unpriced, 1);
    }
  }

  #rowAt(id: number): Found {
    return this.#find.get(id) as unknown as Found;
  }
  #insert(table: string, names: readonly string[], values: readonly SQLInputValue[]): void {
    let statement = this.#statements.get(table);
    if (statement === undefined) {
      statement = this.#db.prepare(
        `INSERT OR REPLACE INTO ${table} (${names.join(", ")}) VALUES (${marks(names.length)})`,
      );
      this.#statements.set(table, statement);
    }
    statement.run(...values);
  }
}

/** Runs a statement that gives no rows. Not by `run`, which makes an object of what it changed each time. */
function done(statement: StatementSync, values: readonly SQLInputValue[]): void {
  statement.get(...values);
}

interface Found {
  readonly id: number;
  readonly outcome: number;
  readonly project: number;
  readonly model: number | null;
  readonly stream: number;
}

interface Answered {
  readonly provider: number | null;
  readonly model: number | null;
}

function addSaving(sums: RollupSums, cells: Float64Array, at: number): void {
  const tokens = cells[at + 2]!;
  const amount = cells[at + 3]!;
  if (!Number.isNaN(tokens)) sums.add(FIGURE.savedTokens, tokens);
  if (Number.isNaN(amount)) return;
  const [saved, lost] = SAVING_FIGURES[cells[at]!]!;
  if (amount < 0) sums.add(lost, -amount);
  else sums.add(saved, amount);
}

/** As the database takes it. */
function known(cell: number): number | null {
  return Number.isNaN(cell) ? null : cell;
}

/** Over the attempts that have it; null where none has. */
function sumOf(cells: Float64Array, from: number, end: number): number | null {
  let sum: number | null = null;
  for (let at = from; at < end; at += ATTEMPT_LENGTH) {
    const cell = cells[at]!;
    if (!Number.isNaN(cell)) sum = Math.min(Number.MAX_SAFE_INTEGER, (sum ?? 0) + cell);
  }
  return sum;
}

function packed(body: Uint8Array | undefined): Buffer | null {
  if (body === undefined) return null;
  return zstdCompressSync(body, { params: { [constants.ZSTD_c_compressionLevel]: 3 } });
}

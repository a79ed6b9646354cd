import type { DatabaseSync, SQLInputValue, StatementSync } from "node:sqlite";
import { constants, zstdCompressSync } from "node:zlib";
import type { LedgerBodies, LedgerOutcome } from "@tokenman/plugin-sdk";
import { CACHE, INTERRUPTED, OPEN, OUTCOMES, SAVINGS, type TextKind } from "./codes.ts";
import type { Dictionary } from "./dictionary.ts";
import type { Sums } from "./figures.ts";
import { ATTEMPT_COLUMNS, type PackedAttempt, type PackedBegin, type PackedEnd } from "./packed.ts";
import type { Rollup, RollupKey } from "./rollup.ts";
import { KEYS_PER_MS, keyOfUuid, msOf, uuidBytes } from "./time-key.ts";
import { packVarints } from "./varint.ts";

/** The bodies of an exchange as they travel to the writer: apart from the rest, which is JSON. */
export type BodyBytes = Pick<LedgerBodies, "truncated"> & {
  readonly request: Uint8Array | undefined;
  readonly response: Uint8Array | undefined;
};

const BEGIN = "id, uuid, boot, project, session, client, method, path, dialect, model, stream";
const END = [
  "outcome",
  "status",
  "origin",
  "code",
  "provider",
  "sent_model",
  "cache",
  "duration_us",
  "first_byte_us",
  "bytes_sent",
  "input",
  "cache_read",
  "cache_write_5m",
  "cache_write_1h",
  "output",
  "reasoning",
  "cost",
  "estimated",
  "unpriced",
];

type Column = (typeof ATTEMPT_COLUMNS)[number][0];
const column = (name: Column): number => ATTEMPT_COLUMNS.findIndex(([each]) => each === name);
const AT = column("after_ms");
const PROVIDER = column("provider");
const MODEL = column("model");
const RESULT = column("result");
const ESTIMATED = column("estimated");
const UNPRICED = column("unpriced");
const COST = column("cost");
/** The code of a reply among the results. */
const REPLY = 0;
const ATTEMPT_TEXTS = ATTEMPT_COLUMNS.flatMap((each, index): [number, TextKind][] =>
  each.length === 2 ? [[index, each[1]]] : [],
);
/** Figures that are an attempt's columns. */
const ATTEMPT_FIGURES: readonly (readonly [number, keyof Sums])[] = [
  [column("input"), "inputTokens"],
  [column("cache_read"), "cacheReadTokens"],
  [column("cache_write_5m"), "cacheWrite5mTokens"],
  [column("cache_write_1h"), "cacheWrite1hTokens"],
  [column("output"), "outputTokens"],
  [column("reasoning"), "reasoningTokens"],
  [column("cost_input"), "costInput"],
  [column("cost_cache_read"), "costCacheRead"],
  [column("cost_cache_write_5m"), "costCacheWrite5m"],
  [column("cost_cache_write_1h"), "costCacheWrite1h"],
  [column("cost_output"), "costOutput"],
  [column("cost_server_tools"), "costServerTools"],
  [COST, "cost"],
];
/** Those of an exchange's columns that are sums over its attempts. */
const SUMMED = (
  ["input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning"] as const
).map(column);

const marks = (count: number): string => Array(count).fill("?").join(", ");

/** Writes exchanges: rows, and the rollups that go with them. Within a transaction that the caller holds. */
export class Rows {
  readonly #db: DatabaseSync;
  readonly #texts: Dictionary;
  readonly #rollup: Rollup;
  readonly #boot: number;
  readonly #place: StatementSync;
  readonly #find: StatementSync;
  readonly #begin: StatementSync;
  readonly #end: StatementSync;
  readonly #whole: StatementSync;
  readonly #attempts: StatementSync;
  readonly #timings: StatementSync;
  readonly #statements = new Map<string, StatementSync>();

  constructor(db: DatabaseSync, texts: Dictionary, rollup: Rollup, boot: number) {
    this.#db = db;
    this.#texts = texts;
    this.#rollup = rollup;
    this.#boot = boot;
    this.#place = db.prepare(
      `SELECT max(id) AS last, max(CASE WHEN uuid = ? THEN id END) AS own FROM request WHERE id BETWEEN ? AND ?`,
    );
    this.#find = db.prepare("SELECT id, outcome, project, model, stream FROM request WHERE id = ?");
    this.#begin = db.prepare(`INSERT INTO request (${BEGIN}, outcome) VALUES (${marks(11)}, ${OPEN})`);
    this.#whole = db.prepare(
      `INSERT INTO request (${BEGIN}, ${END.join(", ")}) VALUES (${marks(11 + END.length)})`,
    );
    this.#end = db.prepare(`UPDATE request SET ${END.map((name) => `${name} = ?`).join(", ")} WHERE id = ?`);
    const attempt = ATTEMPT_COLUMNS.map(([name]) => name).join(", ");
    this.#attempts = db.prepare(
      `INSERT OR REPLACE INTO attempt (request, ${attempt}) VALUES (${marks(1 + ATTEMPT_COLUMNS.length)})`,
    );
    this.#timings = db.prepare("INSERT OR REPLACE INTO timing (request, taps) VALUES (?, ?)");
  }

  /** Adds an open row; nothing for an exchange that has one. */
  begin(row: PackedBegin): void {
    const uuid = uuidBytes(row[0]);
    const { found, free } = this.#placeOf(uuid);
    if (found === undefined) this.#begin.run(...this.#opening(row, uuid, free));
  }

  /** Ends a row. Nothing for one that has ended already, or was never begun. */
  end(row: PackedEnd, bodies: BodyBytes | undefined): void {
    const { found } = this.#placeOf(uuidBytes(row[0]));
    if (found !== undefined) this.#endOf(found, row, bodies);
  }

  /** Adds a row that has ended. As {@link begin} and {@link end} one after the other, in one insert. */
  whole(begin: PackedBegin, row: PackedEnd, bodies: BodyBytes | undefined): void {
    const uuid = uuidBytes(begin[0]);
    const { found, free } = this.#placeOf(uuid);
    if (found !== undefined) {
      this.#endOf(found, row, bodies);
      return;
    }
    const opening = this.#opening(begin, uuid, free);
    const [, , , project, , , , , , model, stream] = opening;
    const fresh: Found = { id: free, outcome: OPEN, project, model, stream };
    const answered = this.#answered(row);
    this.#whole.run(...opening, ...this.#ending(fresh, row, answered));
    this.#rest(fresh, row, answered, bodies);
  }

  #endOf(found: Found, row: PackedEnd, bodies: BodyBytes | undefined): void {
    if (found.outcome !== OPEN && found.outcome !== INTERRUPTED) return;
    const answered = this.#answered(row);
    this.#end.run(...this.#ending(found, row, answered), found.id);
    this.#rest(found, row, answered, bodies);
  }

  #opening(row: PackedBegin, uuid: Buffer, id: number): Opening {
    return [
      id,
      uuid,
      this.#boot,
      this.#texts.id("project", row[1])!,
      this.#texts.id("session", row[2])!,
      this.#texts.id("client", row[3])!,
      this.#texts.id("method", row[4])!,
      this.#texts.id("path", row[5])!,
      this.#text("dialect", row[6]),
      this.#text("model", row[7]),
      row[8],
    ];
  }
  /** The provider and the model that an exchange counts for: of the attempt that answered, or of the last one. */
  #answered([, , , , , provider, , , , , attempts]: PackedEnd): Answered {
    const last = attempts.findLast((attempt) => attempt[RESULT] === REPLY) ?? attempts.at(-1);
    return {
      provider: this.#text("provider", provider ?? textIn(last, PROVIDER)),
      model: this.#text("model", textIn(last, MODEL)),
    };
  }
  /** The values of END. */
  #ending(found: Found, row: PackedEnd, answered: Answered): (number | null)[] {
    const [, outcome, status, origin, code, , cache, durationUs, firstByteUs, bytesSent, attempts] = row;
    const values = [
      outcome,
      status,
      origin,
      this.#text("code", code),
      answered.provider,
      answered.model === found.model ? null : answered.model,
      cache,
      durationUs,
      firstByteUs,
      bytesSent,
    ];
    for (const index of SUMMED) values.push(sumOf(attempts, index));
    values.push(
      sumOf(attempts, COST),
      attempts.some((attempt) => attempt[ESTIMATED] === 1) ? 1 : null,
      attempts.some((attempt) => attempt[UNPRICED] !== null) ? 1 : null,
    );
    return values;
  }
  /** What belongs to a row that ends: its attempts and all else, and the sums. */
  #rest(found: Found, row: PackedEnd, answered: Answered, bodies: BodyBytes | undefined): void {
    const { id } = found;
    const [, , , , , , , , , , attempts, savings, timings, error] = row;
    for (const attempt of attempts) {
      const values: SQLInputValue[] = [id, ...attempt];
      values[1 + AT] = Math.max(0, Math.round(Number(attempt[AT]) - msOf(id)));
      for (const [index, kind] of ATTEMPT_TEXTS) values[1 + index] = this.#text(kind, textIn(attempt, index));
      this.#attempts.run(...values);
    }
    if (timings.length > 0) {
      const taps = timings.map((part) => (typeof part === "number" ? part : this.#texts.id("plugin", part)!));
      this.#timings.run(id, packVarints(taps));
    }
    savings.forEach(([kind, plugin, tokens, nanoUsd], number) => {
      this.#insert(
        "saving",
        ["request", "number", "kind", "plugin", "tokens", "nano_usd"],
        [id, number, kind, this.#text("plugin", plugin), tokens, nanoUsd],
      );
    });
    if (error !== null) this.#insert("failure", ["request", "error"], [id, error]);
    if (bodies !== undefined) {
      this.#insert(
        "body",
        ["request", "sent", "received", "truncated"],
        [id, packed(bodies.request), packed(bodies.response), bodies.truncated ? 1 : 0],
      );
    }
    this.#sumUp(found, row, answered);
  }

  /**
   * The exchange counts for the provider and model that answered it; tokens and money count where they were spent,
   * which for a retried exchange may be several.
   */
  #sumUp(found: Found, row: PackedEnd, answered: Answered): void {
    const [, outcome, status, , , , cache, durationUs, firstByteUs, , attempts, savings] = row;
    const ms = msOf(found.id);
    const { project } = found;
    const key: RollupKey = {
      project,
      provider: answered.provider ?? 0,
      model: answered.model ?? found.model ?? 0,
    };
    const figures: Partial<Sums> = { requests: 1, durationUs: durationUs ?? 0 };
    figures[OUTCOMES[outcome] as Exclude<LedgerOutcome, "open">] = 1;
    if (status >= 400) figures.errors = 1;
    if (found.stream === 1) figures.streams = 1;
    const cached = cache === null ? undefined : CACHE_FIGURE[CACHE[cache]!];
    if (cached !== undefined) figures[cached] = 1;
    if (firstByteUs !== null) {
      figures.firstBytes = 1;
      figures.firstByteUs = firstByteUs;
    }
    for (const [kind, , tokens, nanoUsd] of savings) {
      figures.savedTokens = (figures.savedTokens ?? 0) + (tokens ?? 0);
      const amount = nanoUsd ?? 0;
      const name = `${amount < 0 ? "lost" : "saved"}${SAVING_FIGURE[SAVINGS[kind]!]}` as keyof Sums;
      figures[name] = (figures[name] ?? 0) + Math.abs(amount);
    }
    this.#rollup.add(ms, key, figures);
    // It was counted as interrupted, in the place where it began, while its process was taken for dead.
    if (found.outcome === INTERRUPTED)
      this.#rollup.add(
        ms,
        { project, provider: 0, model: found.model ?? 0 },
        { requests: -1, interrupted: -1 },
      );
    for (const attempt of attempts) {
      const own: Partial<Sums> = { attempts: 1 };
      for (const [index, figure] of ATTEMPT_FIGURES) {
        const value = attempt[index];
        if (typeof value === "number" && value !== 0) own[figure] = value;
      }
      if (own.cost !== undefined && attempt[ESTIMATED] === 1) own.costEstimated = own.cost;
      if (attempt[UNPRICED] !== null) own.unpriced = 1;
      this.#rollup.add(
        ms,
        {
          project,
          provider: this.#text("provider", textIn(attempt, PROVIDER)) ?? 0,
          model: this.#text("model", textIn(attempt, MODEL)) ?? found.model ?? 0,
        },
        own,
      );
    }
  }

  /** The row of an exchange, and the key that it gets where it has none. */
  #placeOf(uuid: Buffer): { readonly found: Found | undefined; readonly free: number } {
    const first = keyOfUuid(uuid);
    const { last, own } = this.#place.get(uuid, first, first + KEYS_PER_MS - 1) as unknown as Place;
    return {
      found: own === null ? undefined : (this.#find.get(own) as unknown as Found),
      free: last === null ? first : last + 1,
    };
  }
  #text(kind: TextKind, text: string | null | undefined): number | null {
    return text === null || text === undefined ? null : this.#texts.id(kind, text);
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

/** Among the rows of a millisecond: the last one's key, and that of the exchange itself. */
interface Place {
  readonly last: number | null;
  readonly own: number | null;
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

/** The values of BEGIN. */
type Opening = [
  id: number,
  uuid: Buffer,
  boot: number,
  project: number,
  session: number,
  client: number,
  method: number,
  path: number,
  dialect: number | null,
  model: number | null,
  stream: number,
];

const SAVING_FIGURE = {
  "response-cache": "ResponseCache",
  "provider-cache": "ProviderCache",
  compression: "Compression",
} as const satisfies Record<(typeof SAVINGS)[number], string>;

const CACHE_FIGURE: Readonly<Record<(typeof CACHE)[number], keyof Sums | undefined>> = {
  HIT: "cacheHits",
  MISS: "cacheMisses",
  COALESCED: "cacheCoalesced",
  BYPASS: undefined,
};

function textIn(attempt: PackedAttempt | undefined, index: number): string | null {
  const cell = attempt?.[index];
  return typeof cell === "string" ? cell : null;
}

/** Over the attempts that have it; null where none has. */
function sumOf(attempts: readonly PackedAttempt[], index: number): number | null {
  let sum: number | null = null;
  for (const attempt of attempts) {
    const cell = attempt[index];
    if (typeof cell === "number") sum = Math.min(Number.MAX_SAFE_INTEGER, (sum ?? 0) + cell);
  }
  return sum;
}

function packed(body: Uint8Array | undefined): Buffer | null {
  if (body === undefined) return null;
  return zstdCompressSync(body, { params: { [constants.ZSTD_c_compressionLevel]: 3 } });
}

import type { DatabaseSync, SQLInputValue, StatementSync } from "node:sqlite";
import { constants, zstdCompressSync } from "node:zlib";
import type {
  CostByKind,
  LedgerAttempt,
  LedgerBegin,
  LedgerBodies,
  LedgerSaving,
  Usage,
} from "@tokenman/plugin-sdk";
import {
  BODY_ENDS,
  CACHE,
  codeOf,
  INTERRUPTED,
  OPEN,
  ORIGINS,
  OUTCOMES,
  RESULTS,
  SAVINGS,
  type TextKind,
} from "./codes.ts";
import type { Dictionary } from "./dictionary.ts";
import type { Sums } from "./figures.ts";
import type { EndRow } from "./messages.ts";
import type { Rollup, RollupKey } from "./rollup.ts";
import { KEYS_PER_MS, keyOfUuid, msOf, uuidBytes } from "./time-key.ts";
import { packVarints } from "./varint.ts";

const MAX_ERROR_LENGTH = 500;
/** Beyond them a plugin that loops would fill the disk. */
const MAX_TIMINGS = 200;
const MAX_SAVINGS = 100;
const MAX_SAFE = Number.MAX_SAFE_INTEGER;

/** The bodies of an exchange as they travel to the writer: apart from the rest, which is JSON. */
export type BodyBytes = Pick<LedgerBodies, "truncated"> & {
  readonly request: Uint8Array | undefined;
  readonly response: Uint8Array | undefined;
};

/** Writes exchanges: rows, and the rollups that go with them. Within a transaction that the caller holds. */
export class Rows {
  readonly #db: DatabaseSync;
  readonly #texts: Dictionary;
  readonly #rollup: Rollup;
  readonly #boot: number;
  readonly #statements = new Map<string, StatementSync>();

  constructor(db: DatabaseSync, texts: Dictionary, rollup: Rollup, boot: number) {
    this.#db = db;
    this.#texts = texts;
    this.#rollup = rollup;
    this.#boot = boot;
  }

  /** Adds an open row; nothing for an exchange that has one. */
  begin(row: LedgerBegin): void {
    const uuid = uuidBytes(row.exchangeId);
    const first = keyOfUuid(uuid);
    if (this.#find(first, uuid) !== undefined) return;
    this.#insert("request", {
      id: this.#freeKey(first),
      uuid,
      boot: this.#boot,
      project: this.#text("project", row.project),
      session: this.#text("session", row.session),
      client: this.#text("client", row.client),
      method: this.#text("method", row.method),
      path: this.#text("path", row.path),
      dialect: this.#text("dialect", row.dialect),
      model: this.#text("model", row.model),
      stream: row.stream ? 1 : 0,
      outcome: OPEN,
    });
  }

  /** Ends a row. Nothing for one that has ended already, or was never begun. */
  end(row: EndRow, bodies: BodyBytes | undefined): boolean {
    const uuid = uuidBytes(row.exchangeId);
    const found = this.#find(keyOfUuid(uuid), uuid);
    if (found === undefined || (found.outcome !== OPEN && found.outcome !== INTERRUPTED)) return false;
    const { id } = found;
    const { outcome } = row;
    const last = row.attempts.findLast(({ result }) => result.kind === "reply") ?? row.attempts.at(-1);
    const provider = this.#text("provider", row.provider ?? last?.provider);
    const sent = this.#text("model", last?.model);
    const usages = row.attempts.flatMap(({ usage }) => (usage === undefined ? [] : [usage]));
    const costs = row.attempts.flatMap(({ cost }) => (cost === undefined ? [] : [cost]));
    const sum = (kind: keyof Usage): number | null =>
      usages.length === 0 ? null : whole(usages.reduce((total, usage) => total + Number(usage[kind]), 0));
    this.#run(
      "end",
      `UPDATE request SET outcome = ?, status = ?, origin = ?, code = ?, provider = ?, sent_model = ?, cache = ?,
         duration_us = ?, first_byte_us = ?, bytes_sent = ?, input = ?, cache_read = ?, cache_write_5m = ?,
         cache_write_1h = ?, output = ?, reasoning = ?, cost = ?, estimated = ?, unpriced = ?
       WHERE id = ?`,
      codeOf(OUTCOMES, outcome.kind) ?? OPEN,
      whole(outcome.status),
      codeOf(ORIGINS, outcome.origin),
      this.#text("code", outcome.code),
      provider,
      sent === found.model ? null : sent,
      codeOf(CACHE, row.cache),
      micros(outcome.durationMs),
      micros(outcome.firstByteMs),
      whole(outcome.bytesSent),
      sum("inputTokens"),
      sum("cacheReadTokens"),
      sum("cacheWrite5mTokens"),
      sum("cacheWrite1hTokens"),
      sum("outputTokens"),
      sum("reasoningTokens"),
      costs.length === 0 ? null : whole(costs.reduce((total, cost) => total + cost.total, 0)),
      row.attempts.some(({ estimated }) => estimated) ? 1 : null,
      row.attempts.some(({ unpriced }) => unpriced !== undefined) ? 1 : null,
      id,
    );
    for (const attempt of row.attempts) this.#attempt(id, attempt);
    for (const [index, saving] of row.savings.slice(0, MAX_SAVINGS).entries())
      this.#saving(id, index, saving);
    if (row.timings.length > 0) {
      const taps = row.timings
        .slice(0, 3 * MAX_TIMINGS)
        .map((part) => (typeof part === "number" ? part : (this.#text("plugin", part) ?? 0)));
      this.#insert("timing", { request: id, taps: packVarints(taps) });
    }
    if (row.error !== undefined && row.error !== "")
      this.#insert("failure", { request: id, error: row.error.slice(0, MAX_ERROR_LENGTH) });
    if (bodies !== undefined) {
      this.#insert("body", {
        request: id,
        sent: packed(bodies.request),
        received: packed(bodies.response),
        truncated: bodies.truncated ? 1 : 0,
      });
    }
    this.#sumUp(found, row, { provider, model: sent ?? found.model });
    return true;
  }

  #attempt(request: number, attempt: LedgerAttempt): void {
    const { result, usage, cost } = attempt;
    this.#insert("attempt", {
      request,
      number: attempt.number,
      after_ms: whole(Math.max(0, attempt.at - msOf(request))),
      provider: this.#text("provider", attempt.provider),
      model: this.#text("model", attempt.model),
      result: codeOf(RESULTS, result.kind) ?? 0,
      body_end: result.kind === "reply" ? codeOf(BODY_ENDS, result.body) : null,
      bytes_sent: result.kind === "error" ? (result.bytesSent ? 1 : 0) : null,
      status: result.kind === "reply" ? whole(result.status) : null,
      code:
        result.kind === "error"
          ? this.#text("code", result.code)
          : result.kind === "skipped"
            ? this.#text("code", result.by)
            : null,
      said:
        result.kind === "error"
          ? result.message.slice(0, MAX_ERROR_LENGTH)
          : result.kind === "skipped"
            ? result.reason.slice(0, MAX_ERROR_LENGTH)
            : null,
      head_us: micros(attempt.headMs),
      first_byte_us: micros(attempt.firstByteMs),
      duration_us: micros(attempt.durationMs) ?? 0,
      answered_model: this.#text("model", usage?.model),
      tier: this.#text("tier", usage?.serviceTier),
      complete: usage === undefined ? null : usage.complete ? 1 : 0,
      exact: usage === undefined ? null : usage.source === "provider" ? 1 : 0,
      input: whole(usage?.inputTokens),
      cache_read: whole(usage?.cacheReadTokens),
      cache_write_5m: whole(usage?.cacheWrite5mTokens),
      cache_write_1h: whole(usage?.cacheWrite1hTokens),
      output: whole(usage?.outputTokens),
      reasoning: whole(usage?.reasoningTokens),
      server_tools:
        usage === undefined || Object.keys(usage.serverTools).length === 0
          ? null
          : JSON.stringify(usage.serverTools),
      cost_input: whole(cost?.input),
      cost_cache_read: whole(cost?.cacheRead),
      cost_cache_write_5m: whole(cost?.cacheWrite5m),
      cost_cache_write_1h: whole(cost?.cacheWrite1h),
      cost_output: whole(cost?.output),
      cost_server_tools: whole(cost?.serverTools),
      cost: whole(cost?.total),
      estimated: attempt.estimated ? 1 : 0,
      unpriced: this.#text("reason", attempt.unpriced),
    });
  }
  #saving(request: number, number: number, saving: LedgerSaving): void {
    this.#insert("saving", {
      request,
      number,
      kind: codeOf(SAVINGS, saving.kind) ?? 0,
      plugin: this.#text("plugin", saving.plugin),
      tokens: whole(saving.tokens),
      nano_usd: whole(saving.nanoUsd),
    });
  }

  /**
   * The exchange counts for the provider and model that answered it; tokens and money count where they were spent,
   * which for a retried exchange may be several.
   */
  #sumUp(
    found: Found,
    row: EndRow,
    { provider, model }: { readonly provider: number | null; readonly model: number | null },
  ): void {
    const { outcome } = row;
    const ms = msOf(found.id);
    const key: RollupKey = { project: found.project, provider: provider ?? 0, model: model ?? 0 };
    const figures: Partial<Sums> = {
      [outcome.kind]: 1,
      requests: 1,
      durationUs: micros(outcome.durationMs) ?? 0,
    };
    if (outcome.status >= 400) figures.errors = 1;
    if (found.stream === 1) figures.streams = 1;
    if (row.cache === "HIT") figures.cacheHits = 1;
    else if (row.cache === "COALESCED") figures.cacheCoalesced = 1;
    else if (row.cache === "MISS") figures.cacheMisses = 1;
    if (outcome.firstByteMs !== undefined) {
      figures.firstBytes = 1;
      figures.firstByteUs = micros(outcome.firstByteMs) ?? 0;
    }
    for (const { kind, tokens, nanoUsd = 0 } of row.savings) {
      figures.savedTokens = (figures.savedTokens ?? 0) + (whole(tokens) ?? 0);
      const amount = whole(nanoUsd) ?? 0;
      const name = `${amount < 0 ? "lost" : "saved"}${SAVING_FIGURE[kind]}` as keyof Sums;
      figures[name] = (figures[name] ?? 0) + Math.abs(amount);
    }
    this.#rollup.add(ms, key, figures);
    // It was counted as interrupted, in the place where it began, while its process was taken for dead.
    if (found.outcome === INTERRUPTED)
      this.#rollup.add(
        ms,
        { project: found.project, provider: 0, model: found.model ?? 0 },
        { requests: -1, interrupted: -1 },
      );
    for (const attempt of row.attempts) {
      this.#rollup.add(
        ms,
        {
          project: found.project,
          provider: this.#text("provider", attempt.provider) ?? 0,
          model: this.#text("model", attempt.model) ?? found.model ?? 0,
        },
        {
          attempts: 1,
          ...usageFigures(attempt.usage),
          ...costFigures(attempt),
          ...(attempt.unpriced !== undefined && { unpriced: 1 }),
        },
      );
    }
  }

  #find(first: number, uuid: Buffer): Found | undefined {
    return this.#statement(
      "find",
      `SELECT id, outcome, project, model, stream FROM request WHERE id BETWEEN ? AND ? AND uuid = ?`,
    ).get(first, first + KEYS_PER_MS - 1, uuid) as Found | undefined;
  }
  #freeKey(first: number): number {
    const last = this.#statement("last", "SELECT max(id) AS id FROM request WHERE id BETWEEN ? AND ?").get(
      first,
      first + KEYS_PER_MS - 1,
    )?.["id"];
    return last === null || last === undefined ? first : Number(last) + 1;
  }
  #text(kind: TextKind, text: string | undefined): number | null {
    return this.#texts.id(kind, text);
  }
  #insert(table: string, values: Readonly<Record<string, SQLInputValue>>): void {
    const names = Object.keys(values);
    this.#run(
      `insert ${table}`,
      `INSERT OR REPLACE INTO ${table} (${names.join(", ")}) VALUES (${names.map(() => "?").join(", ")})`,
      ...Object.values(values),
    );
  }
  #run(name: string, sql: string, ...values: SQLInputValue[]): void {
    this.#statement(name, sql).run(...values);
  }
  #statement(name: string, sql: string): StatementSync {
    let statement = this.#statements.get(name);
    if (statement === undefined) {
      statement = this.#db.prepare(sql);
      this.#statements.set(name, statement);
    }
    return statement;
  }
}

interface Found {
  readonly id: number;
  readonly outcome: number;
  readonly project: number;
  readonly model: number | null;
  readonly stream: number;
}

const SAVING_FIGURE = {
  "response-cache": "ResponseCache",
  "provider-cache": "ProviderCache",
  compression: "Compression",
} as const satisfies Record<LedgerSaving["kind"], string>;

function usageFigures(usage: Usage | undefined): Partial<Sums> {
  if (usage === undefined) return {};
  return {
    inputTokens: whole(usage.inputTokens) ?? 0,
    cacheReadTokens: whole(usage.cacheReadTokens) ?? 0,
    cacheWrite5mTokens: whole(usage.cacheWrite5mTokens) ?? 0,
    cacheWrite1hTokens: whole(usage.cacheWrite1hTokens) ?? 0,
    outputTokens: whole(usage.outputTokens) ?? 0,
    reasoningTokens: whole(usage.reasoningTokens) ?? 0,
  };
}

function costFigures({
  cost,
  estimated,
}: {
  readonly cost: CostByKind | undefined;
  readonly estimated: boolean;
}): Partial<Sums> {
  if (cost === undefined) return {};
  return {
    costInput: cost.input,
    costCacheRead: cost.cacheRead,
    costCacheWrite5m: cost.cacheWrite5m,
    costCacheWrite1h: cost.cacheWrite1h,
    costOutput: cost.output,
    costServerTools: cost.serverTools,
    cost: cost.total,
    ...(estimated && { costEstimated: cost.total }),
  };
}

/** A whole number that SQLite and JavaScript both hold exactly; null for none. */
function whole(value: number | undefined): number | null {
  if (value === undefined || Number.isNaN(value)) return null;
  return Math.max(-MAX_SAFE, Math.min(MAX_SAFE, Math.round(value)));
}

function micros(ms: number | undefined): number | null {
  return ms === undefined || !Number.isFinite(ms) ? null : Math.max(0, Math.round(ms * 1000));
}

function packed(body: Uint8Array | undefined): Buffer | null {
  if (body === undefined) return null;
  return zstdCompressSync(body, { params: { [constants.ZSTD_c_compressionLevel]: 3 } });
}

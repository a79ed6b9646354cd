import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { LedgerSummary, LedgerTokens } from "@tokenman/plugin-sdk";
import { CACHE, nameOf, ORIGINS, OUTCOMES, PROMPT_CACHE } from "./codes.ts";
import { type AttemptColumns, type Detail, readDetail } from "./detail.ts";
import { TextsById } from "./texts-by-id.ts";
import { msOf, uuidText } from "./time-key.ts";

type Row = Readonly<Record<string, unknown>>;

export interface Summarized {
  readonly summary: LedgerSummary;
  /** Undefined for a row that is open, and for one that was written before there were details. */
  readonly detail: Detail | undefined;
}

/** Reads rows of `request` as what a list shows of an exchange. */
export class Summaries {
  readonly texts: TextsById;
  readonly #row: StatementSync;
  readonly #attempts: StatementSync;

  constructor(db: DatabaseSync) {
    this.texts = new TextsById(db);
    this.#row = db.prepare(
      "SELECT request.*, failure.error FROM request LEFT JOIN failure ON failure.request = request.id WHERE request.id = ?",
    );
    this.#attempts = db.prepare("SELECT count(*) AS n FROM attempt WHERE request = ?");
  }

  /** Undefined where no row has this key. */
  of(key: number): Summarized | undefined {
    const row = this.#row.get(key);
    if (row === undefined) return undefined;
    const bytes = row["detail"];
    const detail = bytes instanceof Uint8Array ? readDetail(bytes) : undefined;
    const ended = detail === undefined ? this.#endOfColumns(row, key) : this.#endOf(detail);
    const { texts } = this;
    const model = texts.of(row["model"]);
    const summary: LedgerSummary = {
      id: uuidText(row["uuid"] as Uint8Array),
      at: msOf(key),
      project: texts.of(row["project"]) ?? "",
      session: texts.of(row["session"]) ?? "",
      client: texts.of(row["client"]) ?? "",
      method: texts.of(row["method"]) ?? "",
      path: texts.of(row["path"]) ?? "",
      dialect: texts.of(row["dialect"]),
      model,
      sentModel: texts.of(row["sent_model"]) ?? model,
      provider: texts.of(row["provider"]),
      stream: row["stream"] === 1,
      outcome: nameOf(OUTCOMES, Number(row["outcome"])) ?? "open",
      status: numberOf(row["status"]),
      error: textOf(row["error"]),
      ...ended,
    };
    return { summary, detail };
  }

  #endOf({ attempts, ...detail }: Detail): Ended {
    const promptCache = nameOf(PROMPT_CACHE, detail.promptCache);
    return {
      ...(promptCache === undefined ? {} : { promptCache }),
      origin: nameOf(ORIGINS, detail.origin),
      code: this.texts.of(detail.code),
      cache: nameOf(CACHE, detail.cache),
      durationMs: msFromUs(detail.durationUs),
      firstByteMs: msFromUs(detail.firstByteUs),
      bytesSent: numberOf(detail.bytesSent),
      attempts: attempts.length,
      inputTokens: sumOf(attempts, "input") ?? 0,
      cacheReadTokens: sumOf(attempts, "cache_read") ?? 0,
      cacheWrite5mTokens: sumOf(attempts, "cache_write_5m") ?? 0,
      cacheWrite1hTokens: sumOf(attempts, "cache_write_1h") ?? 0,
      outputTokens: sumOf(attempts, "output") ?? 0,
      reasoningTokens: sumOf(attempts, "reasoning") ?? 0,
      costNanoUsd: sumOf(attempts, "cost"),
      estimated: attempts.some(({ estimated }) => estimated === 1),
      unpriced: attempts.some(({ unpriced }) => unpriced !== null),
    };
  }
  #endOfColumns(row: Row, key: number): Ended {
    return {
      origin: nameOf(ORIGINS, numberOf(row["origin"]) ?? null),
      code: this.texts.of(row["code"]),
      cache: nameOf(CACHE, numberOf(row["cache"]) ?? null),
      durationMs: msFromUs(row["duration_us"]),
      firstByteMs: msFromUs(row["first_byte_us"]),
      bytesSent: numberOf(row["bytes_sent"]),
      attempts: Number(this.#attempts.get(key)?.["n"] ?? 0),
      inputTokens: Number(row["input"] ?? 0),
      cacheReadTokens: Number(row["cache_read"] ?? 0),
      cacheWrite5mTokens: Number(row["cache_write_5m"] ?? 0),
      cacheWrite1hTokens: Number(row["cache_write_1h"] ?? 0),
      outputTokens: Number(row["output"] ?? 0),
      reasoningTokens: Number(row["reasoning"] ?? 0),
      costNanoUsd: numberOf(row["cost"]),
      estimated: row["estimated"] === 1,
      unpriced: row["unpriced"] === 1,
    };
  }
}

/** What is known of an exchange only when it has ended, and is no column of the table. */
type Ended = Pick<
  LedgerSummary,
  | keyof LedgerTokens
  | "origin"
  | "code"
  | "cache"
  | "promptCache"
  | "durationMs"
  | "firstByteMs"
  | "bytesSent"
  | "attempts"
  | "costNanoUsd"
  | "estimated"
  | "unpriced"
>;

/** Over the attempts that have it; undefined where none has. */
function sumOf(attempts: readonly AttemptColumns[], column: keyof AttemptColumns): number | undefined {
  let sum: number | undefined;
  for (const attempt of attempts) {
    const value = attempt[column];
    if (typeof value === "number") sum = Math.min(Number.MAX_SAFE_INTEGER, (sum ?? 0) + value);
  }
  return sum;
}

export function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}
export function numberOf(value: unknown): number | undefined {
  return typeof value === "number" ? value : undefined;
}
export function msFromUs(value: unknown): number | undefined {
  return typeof value === "number" ? value / 1000 : undefined;
}

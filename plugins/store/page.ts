import type { DatabaseSync } from "node:sqlite";
import type { LedgerFilter, LedgerPage, LedgerSummary } from "@tokenman/plugin-sdk";
import { CACHE, nameOf, ORIGINS, OUTCOMES } from "./codes.ts";
import { question, type Walk, type WalkedRow, walkOf } from "./filter.ts";
import { msOf, uuidText } from "./time-key.ts";

const DEFAULT_LIMIT = 50;
const MAX_LIMIT = 500;
/** What one page may look at, whichever comes first. */
const MAX_WALKED = 20_000;
const MAX_MS = 20;
const CHECK_EVERY = 256;

/** A cursor is the key above the next row, in base 36. */
const CURSOR = /^[0-9a-z]{1,11}$/;

/** One page, newest first. Throws TM_LEDGER_QUERY. */
export function page(
  db: DatabaseSync,
  filter: LedgerFilter,
  options: { readonly cursor?: string; readonly limit?: number } = {},
): LedgerPage {
  const { cursor, limit = DEFAULT_LIMIT } = options;
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_LIMIT)
    throw question(`limit is a whole number from 1 to ${MAX_LIMIT}`);
  const below = cursor === undefined ? Number.MAX_SAFE_INTEGER : keyOf(cursor);
  const walk = walkOf(db, filter);
  if (walk === undefined) return { rows: [], next: undefined };
  const ids: number[] = [];
  const began = performance.now();
  let walked = 0;
  let next: number | undefined;
  for (const row of walkAlong(db, walk, below)) {
    const id = Number(row[0]);
    if (walk.matches(row)) ids.push(id);
    walked++;
    const isLate = walked >= MAX_WALKED || (walked % CHECK_EVERY === 0 && performance.now() - began > MAX_MS);
    if (ids.length < limit && !isLate) continue;
    next = id;
    break;
  }
  const find = db.prepare(SUMMARY);
  const rows = ids.flatMap((id) => {
    const row = find.get(id);
    return row === undefined ? [] : [summaryOf(row)];
  });
  return { rows, next: next?.toString(36) };
}

/** The rows of all sources, in the order of their keys. */
function* walkAlong(db: DatabaseSync, { sources }: Walk, below: number): Generator<WalkedRow> {
  const heads = sources.map(({ sql, values }) => {
    const statement = db.prepare(sql);
    statement.setReturnArrays(true);
    const rows = statement.iterate(...values, below) as unknown as Iterator<WalkedRow, undefined>;
    return { rows, row: rows.next().value ?? undefined };
  });
  for (;;) {
    let newest: (typeof heads)[number] | undefined;
    for (const head of heads) {
      if (head.row !== undefined && (newest?.row === undefined || head.row[0]! > newest.row[0]!))
        newest = head;
    }
    if (newest?.row === undefined) return;
    yield newest.row;
    newest.row = newest.rows.next().value ?? undefined;
  }
}

function keyOf(cursor: string): number {
  const key = CURSOR.test(cursor) ? Number.parseInt(cursor, 36) : Number.NaN;
  if (!Number.isSafeInteger(key)) throw question("cursor is not one that a page gave");
  return key;
}

const text = (column: string): string =>
  `(SELECT value FROM text WHERE text.id = request.${column}) AS ${column}`;

export const SUMMARY = `SELECT id, uuid, stream, outcome, status, origin, cache, duration_us, first_byte_us, bytes_sent,
  input, cache_read, cache_write_5m, cache_write_1h, output, reasoning, cost, estimated, unpriced,
  ${["project", "session", "client", "method", "path", "dialect", "model", "sent_model", "provider", "code"].map(text).join(", ")},
  (SELECT error FROM failure WHERE failure.request = request.id) AS error,
  (SELECT count(*) FROM attempt WHERE attempt.request = request.id) AS attempts
  FROM request WHERE id = ?`;

type Row = Readonly<Record<string, unknown>>;

export function summaryOf(row: Row): LedgerSummary {
  const key = Number(row["id"]);
  return {
    id: uuidText(row["uuid"] as Uint8Array),
    at: msOf(key),
    project: String(row["project"] ?? ""),
    session: String(row["session"] ?? ""),
    client: String(row["client"] ?? ""),
    method: String(row["method"] ?? ""),
    path: String(row["path"] ?? ""),
    dialect: textOf(row["dialect"]),
    model: textOf(row["model"]),
    sentModel: textOf(row["sent_model"]) ?? textOf(row["model"]),
    provider: textOf(row["provider"]),
    stream: row["stream"] === 1,
    outcome: nameOf(OUTCOMES, Number(row["outcome"])) ?? "open",
    status: numberOf(row["status"]),
    origin: nameOf(ORIGINS, numberOf(row["origin"]) ?? null),
    code: textOf(row["code"]),
    error: textOf(row["error"]),
    cache: nameOf(CACHE, numberOf(row["cache"]) ?? null),
    durationMs: msFromUs(row["duration_us"]),
    firstByteMs: msFromUs(row["first_byte_us"]),
    bytesSent: numberOf(row["bytes_sent"]),
    attempts: Number(row["attempts"]),
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

export function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}
export function numberOf(value: unknown): number | undefined {
  return typeof value === "number" ? value : undefined;
}
export function msFromUs(value: unknown): number | undefined {
  return typeof value === "number" ? value / 1000 : undefined;
}

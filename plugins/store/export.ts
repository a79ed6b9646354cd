import type { DatabaseSync } from "node:sqlite";
import type { LedgerRecord, LedgerSummary } from "@tokenman/plugin-sdk";
import { record } from "./record.ts";
import { Summaries } from "./summary.ts";
import { keyAt, uuidText } from "./time-key.ts";

/** From inclusive, to exclusive; milliseconds since the epoch. */
export interface ExportRange {
  readonly from: number;
  readonly to: number;
}

/** One JSON object a line and exchange, oldest first, with attempts, savings and timings. */
export function* jsonLines(db: DatabaseSync, range: ExportRange, withBodies: boolean): Generator<string> {
  const summaries = new Summaries(db);
  for (const { uuid } of keys(db, range)) {
    const found = record(db, uuidText(uuid), summaries);
    if (found !== undefined) yield JSON.stringify(plain(found, withBodies));
  }
}

function plain({ bodies, ...rest }: LedgerRecord, withBodies: boolean): object {
  if (!withBodies || bodies === undefined) return rest;
  const { request, response, truncated } = bodies;
  return { ...rest, bodies: { request: request?.toString(), response: response?.toString(), truncated } };
}

const COLUMNS = [
  "id",
  "at",
  "project",
  "session",
  "client",
  "method",
  "path",
  "dialect",
  "model",
  "sentModel",
  "provider",
  "stream",
  "outcome",
  "status",
  "origin",
  "code",
  "cache",
  "durationMs",
  "firstByteMs",
  "bytesSent",
  "attempts",
  "inputTokens",
  "cacheReadTokens",
  "cacheWrite5mTokens",
  "cacheWrite1hTokens",
  "outputTokens",
  "reasoningTokens",
  "costNanoUsd",
  "estimated",
  "unpriced",
  "error",
  "promptCache",
] as const satisfies readonly (keyof LedgerSummary)[];

/** One line an exchange, oldest first, below a line of names (RFC 4180, less its CR). Times are ISO 8601. */
export function* csv(db: DatabaseSync, range: ExportRange): Generator<string> {
  yield COLUMNS.join(",");
  const summaries = new Summaries(db);
  for (const { id } of keys(db, range)) {
    const summary = summaries.of(id)?.summary;
    if (summary === undefined) continue;
    yield COLUMNS.map((name) =>
      cell(name === "at" ? new Date(summary.at).toISOString() : summary[name]),
    ).join(",");
  }
}

function cell(value: string | number | boolean | undefined): string {
  if (value === undefined) return "";
  // A spreadsheet would run what begins like a formula; the texts are clients'.
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function keys(db: DatabaseSync, { from, to }: ExportRange): Iterable<{ id: number; uuid: Uint8Array }> {
  return db
    .prepare("SELECT id, uuid FROM request WHERE id >= ? AND id < ? ORDER BY id")
    .iterate(keyAt(from), keyAt(to)) as unknown as Iterable<{ id: number; uuid: Uint8Array }>;
}

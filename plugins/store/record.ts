import type { DatabaseSync } from "node:sqlite";
import { zstdDecompressSync } from "node:zlib";
import type {
  AttemptResult,
  CostByKind,
  ErrorCode,
  LedgerAttempt,
  LedgerBodies,
  LedgerRecord,
  LedgerSaving,
  LedgerTiming,
  Usage,
} from "@tokenman/plugin-sdk";
import { BODY_ENDS, HOOKS, nameOf, RESULTS, SAVINGS } from "./codes.ts";
import type { AttemptColumns, Detail } from "./detail.ts";
import { msFromUs, numberOf, Summaries, textOf } from "./summary.ts";
import type { TextsById } from "./texts-by-id.ts";
import { isUuid, KEYS_PER_MS, keyOfUuid, uuidBytes } from "./time-key.ts";
import { VarintReader } from "./varint.ts";

/** An exchange with its attempts, savings, timings and bodies; undefined where there is none of that id. */
export function record(
  db: DatabaseSync,
  id: string,
  summaries: Summaries = new Summaries(db),
): LedgerRecord | undefined {
  if (!isUuid(id)) return undefined;
  const uuid = uuidBytes(id);
  const first = keyOfUuid(uuid);
  const row = db
    .prepare("SELECT id FROM request WHERE id BETWEEN ? AND ? AND uuid = ?")
    .get(first, first + KEYS_PER_MS - 1, uuid);
  const key = Number(row?.["id"]);
  const found = row === undefined ? undefined : summaries.of(key);
  if (found === undefined) return undefined;
  const { summary, detail = olderDetail(db, key) } = found;
  const { texts } = summaries;
  return {
    ...summary,
    tries: detail.attempts.map((attempt) => attemptOf(attempt, summary.at, texts)),
    savings: detail.savings.map(
      ({ kind, plugin, tokens, nanoUsd }): LedgerSaving => ({
        kind: nameOf(SAVINGS, kind) ?? "compression",
        plugin: texts.of(plugin) ?? "",
        tokens,
        nanoUsd: numberOf(nanoUsd),
      }),
    ),
    timings: detail.taps.map(
      ({ plugin, hook, us }): LedgerTiming => ({
        plugin: texts.of(plugin) ?? "",
        hook: HOOKS[hook] ?? "request",
        durationMs: us / 1000,
      }),
    ),
    bodies: bodiesOf(db, key),
  };
}

/** Of a row that was written before version 5 of the schema: in tables of their own. */
export function olderDetail(db: DatabaseSync, key: number): Pick<Detail, "attempts" | "savings" | "taps"> {
  const taps: Detail["taps"][number][] = [];
  const bytes = db.prepare("SELECT taps FROM timing WHERE request = ?").get(key)?.["taps"];
  const reader = new VarintReader(bytes instanceof Uint8Array ? bytes : new Uint8Array());
  while (!reader.atEnd) taps.push({ plugin: reader.next(), hook: reader.next(), us: reader.next() });
  return {
    attempts: db
      .prepare("SELECT * FROM attempt WHERE request = ? ORDER BY number")
      .all(key) as unknown as AttemptColumns[],
    savings: db
      .prepare(
        "SELECT kind, plugin, tokens, nano_usd AS nanoUsd FROM saving WHERE request = ? ORDER BY number",
      )
      .all(key) as unknown as Detail["savings"],
    taps,
  };
}

function attemptOf(row: AttemptColumns, began: number, texts: TextsById): LedgerAttempt {
  return {
    number: Number(row.number),
    at: began + Number(row.after_ms),
    provider: texts.of(row.provider) ?? "",
    model: texts.of(row.model),
    result: resultOf(row, texts),
    headMs: msFromUs(row.head_us),
    firstByteMs: msFromUs(row.first_byte_us),
    durationMs: msFromUs(row.duration_us) ?? 0,
    usage: usageOf(row, texts),
    cost: costOf(row),
    estimated: row.estimated === 1,
    unpriced: texts.of(row.unpriced),
  };
}

function resultOf(row: AttemptColumns, texts: TextsById): AttemptResult {
  const kind = nameOf(RESULTS, Number(row.result)) ?? "cancelled";
  switch (kind) {
    case "reply":
      return {
        kind,
        status: Number(row.status ?? 0),
        body: nameOf(BODY_ENDS, numberOf(row.body_end) ?? null) ?? "failed",
      };
    case "skipped":
      return { kind, by: texts.of(row.code) ?? "", reason: textOf(row.said) ?? "" };
    case "error":
      return {
        kind,
        code: (texts.of(row.code) ?? "TM_INTERNAL") as ErrorCode,
        message: textOf(row.said) ?? "",
        bytesSent: row.bytes_sent === 1,
      };
    case "cancelled":
      return { kind };
  }
}

function usageOf(row: AttemptColumns, texts: TextsById): Usage | undefined {
  if (row.complete === null) return undefined;
  return {
    source: row.exact === 1 ? "provider" : "estimate",
    inputTokens: Number(row.input ?? 0),
    cacheReadTokens: Number(row.cache_read ?? 0),
    cacheWrite5mTokens: Number(row.cache_write_5m ?? 0),
    cacheWrite1hTokens: Number(row.cache_write_1h ?? 0),
    outputTokens: Number(row.output ?? 0),
    reasoningTokens: Number(row.reasoning ?? 0),
    serverTools: typeof row.server_tools === "string" ? JSON.parse(row.server_tools) : {},
    serviceTier: texts.of(row.tier),
    model: texts.of(row.answered_model),
    complete: row.complete === 1,
  };
}

function costOf(row: AttemptColumns): CostByKind | undefined {
  if (row.cost === null) return undefined;
  return {
    input: Number(row.cost_input),
    cacheRead: Number(row.cost_cache_read),
    cacheWrite5m: Number(row.cost_cache_write_5m),
    cacheWrite1h: Number(row.cost_cache_write_1h),
    output: Number(row.cost_output),
    serverTools: Number(row.cost_server_tools),
    total: Number(row.cost),
  };
}

function bodiesOf(db: DatabaseSync, key: number): LedgerBodies | undefined {
  const row = db.prepare("SELECT sent, received, truncated FROM body WHERE request = ?").get(key);
  if (row === undefined) return undefined;
  const unpacked = (value: unknown): Buffer | undefined =>
    value instanceof Uint8Array ? zstdDecompressSync(value) : undefined;
  return {
    request: unpacked(row["sent"]),
    response: unpacked(row["received"]),
    truncated: row["truncated"] === 1,
  };
}

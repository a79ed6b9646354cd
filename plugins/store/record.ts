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
import { msFromUs, numberOf, SUMMARY, summaryOf, textOf } from "./page.ts";
import { isUuid, KEYS_PER_MS, keyOfUuid, uuidBytes } from "./time-key.ts";
import { unpackVarints } from "./varint.ts";

type Row = Readonly<Record<string, unknown>>;

/** An exchange with its attempts, savings, timings and bodies; undefined where there is none of that id. */
export function record(db: DatabaseSync, id: string): LedgerRecord | undefined {
  if (!isUuid(id)) return undefined;
  const uuid = uuidBytes(id);
  const first = keyOfUuid(uuid);
  const found = db
    .prepare("SELECT id FROM request WHERE id BETWEEN ? AND ? AND uuid = ?")
    .get(first, first + KEYS_PER_MS - 1, uuid);
  if (found === undefined) return undefined;
  const key = Number(found["id"]);
  const summary = summaryOf(db.prepare(SUMMARY).get(key)!);
  return {
    ...summary,
    tries: db
      .prepare(ATTEMPTS)
      .all(key)
      .map((row) => attemptOf(row, summary.at)),
    savings: db
      .prepare(
        `SELECT saving.kind, text.value AS plugin, tokens, nano_usd FROM saving LEFT JOIN text ON text.id = saving.plugin
         WHERE request = ? ORDER BY number`,
      )
      .all(key)
      .map(savingOf),
    timings: timingsOf(db, key),
    bodies: bodiesOf(db, key),
  };
}

const name = (column: string): string =>
  `(SELECT value FROM text WHERE text.id = attempt.${column}) AS ${column}_name`;
const ATTEMPTS = `SELECT *, ${["provider", "model", "code", "answered_model", "tier", "unpriced"].map(name).join(", ")}
  FROM attempt WHERE request = ? ORDER BY number`;

function attemptOf(row: Row, began: number): LedgerAttempt {
  return {
    number: Number(row["number"]),
    at: began + Number(row["after_ms"]),
    provider: String(row["provider_name"] ?? ""),
    model: textOf(row["model_name"]),
    result: resultOf(row),
    headMs: msFromUs(row["head_us"]),
    firstByteMs: msFromUs(row["first_byte_us"]),
    durationMs: msFromUs(row["duration_us"]) ?? 0,
    usage: usageOf(row),
    cost: costOf(row),
    estimated: row["estimated"] === 1,
    unpriced: textOf(row["unpriced_name"]),
  };
}

function resultOf(row: Row): AttemptResult {
  const kind = nameOf(RESULTS, Number(row["result"])) ?? "cancelled";
  switch (kind) {
    case "reply":
      return {
        kind,
        status: Number(row["status"] ?? 0),
        body: nameOf(BODY_ENDS, numberOf(row["body_end"]) ?? null) ?? "failed",
      };
    case "skipped":
      return { kind, by: String(row["code_name"] ?? ""), reason: String(row["said"] ?? "") };
    case "error":
      return {
        kind,
        code: String(row["code_name"] ?? "TM_INTERNAL") as ErrorCode,
        message: String(row["said"] ?? ""),
        bytesSent: row["bytes_sent"] === 1,
      };
    case "cancelled":
      return { kind };
  }
}

function usageOf(row: Row): Usage | undefined {
  if (row["complete"] === null) return undefined;
  return {
    source: row["exact"] === 1 ? "provider" : "estimate",
    inputTokens: Number(row["input"] ?? 0),
    cacheReadTokens: Number(row["cache_read"] ?? 0),
    cacheWrite5mTokens: Number(row["cache_write_5m"] ?? 0),
    cacheWrite1hTokens: Number(row["cache_write_1h"] ?? 0),
    outputTokens: Number(row["output"] ?? 0),
    reasoningTokens: Number(row["reasoning"] ?? 0),
    serverTools: typeof row["server_tools"] === "string" ? JSON.parse(row["server_tools"]) : {},
    serviceTier: textOf(row["tier_name"]),
    model: textOf(row["answered_model_name"]),
    complete: row["complete"] === 1,
  };
}

function costOf(row: Row): CostByKind | undefined {
  if (row["cost"] === null) return undefined;
  return {
    input: Number(row["cost_input"]),
    cacheRead: Number(row["cost_cache_read"]),
    cacheWrite5m: Number(row["cost_cache_write_5m"]),
    cacheWrite1h: Number(row["cost_cache_write_1h"]),
    output: Number(row["cost_output"]),
    serverTools: Number(row["cost_server_tools"]),
    total: Number(row["cost"]),
  };
}

function savingOf(row: Row): LedgerSaving {
  return {
    kind: nameOf(SAVINGS, Number(row["kind"])) ?? "compression",
    plugin: String(row["plugin"] ?? ""),
    tokens: Number(row["tokens"]),
    nanoUsd: numberOf(row["nano_usd"]),
  };
}

function timingsOf(db: DatabaseSync, key: number): LedgerTiming[] {
  const taps = db.prepare("SELECT taps FROM timing WHERE request = ?").get(key)?.["taps"];
  if (!(taps instanceof Uint8Array)) return [];
  const find = db.prepare("SELECT value FROM text WHERE id = ?");
  const numbers = unpackVarints(taps);
  const timings: LedgerTiming[] = [];
  for (let at = 0; at + 2 < numbers.length; at += 3) {
    timings.push({
      plugin: String(find.get(numbers[at]!)?.["value"] ?? ""),
      hook: HOOKS[numbers[at + 1]!] ?? "request",
      durationMs: numbers[at + 2]! / 1000,
    });
  }
  return timings;
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

import type { LedgerAttempt, LedgerBegin, LedgerEnd, LedgerSaving } from "@tokenman/plugin-sdk";
import {
  BODY_ENDS,
  CACHE,
  codeOf,
  HOOKS,
  ORIGINS,
  OUTCOMES,
  RESULTS,
  SAVINGS,
  type TextKind,
} from "./codes.ts";

/**
 * Rows on their way to the writer: lists in the order of columns, whose values are what the database takes but for the
 * texts that it keeps ids of. Half the text that objects are, and the thread that proxies makes it for each exchange.
 */
export type Cell = string | number | null;

export type PackedBegin = readonly [
  exchangeId: string,
  project: string,
  session: string,
  client: string,
  method: string,
  path: string,
  dialect: string | null,
  model: string | null,
  stream: 0 | 1,
];

export type PackedEnd = readonly [
  exchangeId: string,
  outcome: number,
  status: number,
  origin: number | null,
  code: string | null,
  provider: string | null,
  cache: number | null,
  durationUs: number | null,
  firstByteUs: number | null,
  bytesSent: number | null,
  attempts: readonly PackedAttempt[],
  savings: readonly PackedSaving[],
  /** Plugin, hook's code, microseconds, one after another. */
  timings: readonly (string | number)[],
  error: string | null,
];

/** In the order of {@link ATTEMPT_COLUMNS}. */
export type PackedAttempt = readonly Cell[];
export type PackedSaving = readonly [
  kind: number,
  plugin: string,
  tokens: number | null,
  nanoUsd: number | null,
];

/** The columns of an attempt, and which kind of text those name that hold an id. `after_ms` travels as a time. */
export const ATTEMPT_COLUMNS = [
  ["number"],
  ["after_ms"],
  ["provider", "provider"],
  ["model", "model"],
  ["result"],
  ["body_end"],
  ["bytes_sent"],
  ["status"],
  ["code", "code"],
  ["said"],
  ["head_us"],
  ["first_byte_us"],
  ["duration_us"],
  ["answered_model", "model"],
  ["tier", "tier"],
  ["complete"],
  ["exact"],
  ["input"],
  ["cache_read"],
  ["cache_write_5m"],
  ["cache_write_1h"],
  ["output"],
  ["reasoning"],
  ["server_tools"],
  ["cost_input"],
  ["cost_cache_read"],
  ["cost_cache_write_5m"],
  ["cost_cache_write_1h"],
  ["cost_output"],
  ["cost_server_tools"],
  ["cost"],
  ["estimated"],
  ["unpriced", "reason"],
] as const satisfies readonly (readonly [column: string, text?: TextKind])[];

const MAX_ERROR_LENGTH = 500;
/** Beyond them a plugin that loops would fill the disk. */
const MAX_TIMINGS = 200;
const MAX_SAVINGS = 100;
const MAX_SAFE = Number.MAX_SAFE_INTEGER;

export function packBegin(row: LedgerBegin): PackedBegin {
  return [
    row.exchangeId,
    row.project,
    row.session,
    row.client,
    row.method,
    row.path,
    row.dialect ?? null,
    row.model ?? null,
    row.stream ? 1 : 0,
  ];
}

export function packEnd(row: LedgerEnd): PackedEnd {
  const { outcome, error } = row;
  return [
    row.exchangeId,
    codeOf(OUTCOMES, outcome.kind) ?? 0,
    whole(outcome.status) ?? 0,
    codeOf(ORIGINS, outcome.origin),
    outcome.code ?? null,
    row.provider ?? null,
    codeOf(CACHE, row.cache),
    micros(outcome.durationMs),
    micros(outcome.firstByteMs),
    whole(outcome.bytesSent),
    row.attempts.map(packAttempt),
    row.savings.length === 0 ? NONE : row.savings.slice(0, MAX_SAVINGS).map(packSaving),
    packTimings(row.timings),
    error === undefined || error === "" ? null : error.slice(0, MAX_ERROR_LENGTH),
  ];
}

const NONE: readonly never[] = [];

function packAttempt(attempt: LedgerAttempt): PackedAttempt {
  const { result, usage, cost } = attempt;
  const isReply = result.kind === "reply";
  return [
    attempt.number,
    attempt.at,
    attempt.provider,
    attempt.model ?? null,
    codeOf(RESULTS, result.kind) ?? 0,
    isReply ? codeOf(BODY_ENDS, result.body) : null,
    result.kind === "error" ? (result.bytesSent ? 1 : 0) : null,
    isReply ? whole(result.status) : null,
    result.kind === "error" ? result.code : result.kind === "skipped" ? result.by : null,
    result.kind === "error"
      ? result.message.slice(0, MAX_ERROR_LENGTH)
      : result.kind === "skipped"
        ? result.reason.slice(0, MAX_ERROR_LENGTH)
        : null,
    micros(attempt.headMs),
    micros(attempt.firstByteMs),
    micros(attempt.durationMs) ?? 0,
    usage?.model ?? null,
    usage?.serviceTier ?? null,
    usage === undefined ? null : usage.complete ? 1 : 0,
    usage === undefined ? null : usage.source === "provider" ? 1 : 0,
    whole(usage?.inputTokens),
    whole(usage?.cacheReadTokens),
    whole(usage?.cacheWrite5mTokens),
    whole(usage?.cacheWrite1hTokens),
    whole(usage?.outputTokens),
    whole(usage?.reasoningTokens),
    usage === undefined || isEmpty(usage.serverTools) ? null : JSON.stringify(usage.serverTools),
    whole(cost?.input),
    whole(cost?.cacheRead),
    whole(cost?.cacheWrite5m),
    whole(cost?.cacheWrite1h),
    whole(cost?.output),
    whole(cost?.serverTools),
    whole(cost?.total),
    attempt.estimated ? 1 : 0,
    attempt.unpriced ?? null,
  ];
}

function packSaving({ kind, plugin, tokens, nanoUsd }: LedgerSaving): PackedSaving {
  return [codeOf(SAVINGS, kind) ?? 0, plugin, whole(tokens), whole(nanoUsd)];
}

function packTimings(timings: LedgerEnd["timings"]): readonly (string | number)[] {
  const packed: (string | number)[] = [];
  const count = Math.min(timings.length, MAX_TIMINGS);
  for (let index = 0; index < count; index++) {
    const { plugin, hook, durationMs } = timings[index]!;
    packed.push(plugin, HOOKS.indexOf(hook), Math.round(durationMs * 1_000));
  }
  return packed;
}

function isEmpty(record: object): boolean {
  for (const _ in record) return false;
  return true;
}

/** A whole number that SQLite and JavaScript both hold exactly; null for none. */
function whole(value: number | undefined): number | null {
  if (value === undefined || Number.isNaN(value)) return null;
  return Math.max(-MAX_SAFE, Math.min(MAX_SAFE, Math.round(value)));
}

function micros(ms: number | undefined): number | null {
  return ms === undefined || !Number.isFinite(ms) ? null : Math.max(0, Math.round(ms * 1000));
}

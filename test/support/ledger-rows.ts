import { randomBytes } from "node:crypto";
import type { CostByKind, LedgerAttempt, LedgerBegin, LedgerEnd, Outcome, Usage } from "@tokenman/plugin-sdk";

let count = 0;

/** A UUID v7 of this time; no two are the same. */
export function exchangeId(ms = Date.now()): string {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(ms, 0, 6);
  bytes[6] = 0x70 | (count++ & 0x0f);
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

export function beginRow(row: Partial<LedgerBegin> = {}): LedgerBegin {
  const at = row.at ?? Date.now();
  return {
    exchangeId: exchangeId(at),
    at,
    project: "default",
    session: "session-1",
    client: "claude-cli/2.1.330",
    method: "POST",
    path: "/v1/messages",
    dialect: "anthropic-messages",
    model: "claude-sonnet-4-5",
    stream: true,
    ...row,
  };
}

export const usage: Usage = Object.freeze({
  source: "provider",
  inputTokens: 12,
  cacheReadTokens: 48_000,
  cacheWrite5mTokens: 1_024,
  cacheWrite1hTokens: 0,
  outputTokens: 350,
  reasoningTokens: 0,
  serverTools: {},
  serviceTier: "standard",
  model: "claude-sonnet-4-5-20250929",
  complete: true,
});

export const cost: CostByKind = Object.freeze({
  input: 36_000,
  cacheRead: 14_400_000,
  cacheWrite5m: 3_840_000,
  cacheWrite1h: 0,
  output: 5_250_000,
  serverTools: 0,
  total: 23_526_000,
});

export function attemptRow(row: Partial<LedgerAttempt> = {}): LedgerAttempt {
  return {
    number: 1,
    at: Date.now(),
    provider: "anthropic",
    model: "claude-sonnet-4-5",
    result: { kind: "reply", status: 200, body: "complete" },
    headMs: 412.5,
    firstByteMs: 413.25,
    durationMs: 4_210.125,
    usage,
    cost,
    estimated: false,
    unpriced: undefined,
    ...row,
  };
}

export function endRow(
  begin: LedgerBegin,
  row: Partial<Omit<LedgerEnd, "outcome">> & { readonly outcome?: Partial<Outcome> } = {},
): LedgerEnd {
  return {
    exchangeId: begin.exchangeId,
    at: begin.at + 4_300,
    provider: "anthropic",
    cache: "MISS",
    attempts: [attemptRow({ at: begin.at + 3 })],
    savings: [],
    timings: [],
    bodies: undefined,
    error: undefined,
    ...row,
    outcome: {
      kind: "answered",
      status: 200,
      origin: "provider",
      code: undefined,
      message: undefined,
      bytesSent: 18_230,
      durationMs: 4_215.75,
      firstByteMs: 415.5,
      ...row.outcome,
    },
  };
}

/**
 * The calls of a recorded session, as its client sent them: bodies in each dialect, when, and what the provider counted.
 * What a recording does not carry is inferred from what it says, and named.
 */

import { readAnthropic } from "../../plugins/mock/anthropic-prompt.ts";
import { Bodies } from "../../plugins/mock/bodies.ts";
import type { Json } from "../../plugins/mock/json.ts";
import { SYSTEM_PROMPT } from "./agent.ts";
import { anthropicRequest, openaiChatRequest, responsesRequest, type SessionTurn } from "./session.ts";

/** How long a provider keeps an unused prefix where nothing else was asked for. */
export const CACHE_TTL_MS = 300_000;

export type ReplayDialect = "anthropic-messages" | "openai-chat" | "openai-responses";

export interface RecordedCall {
  readonly turn: SessionTurn;
  readonly body: Buffer;
  /** Milliseconds since the epoch. */
  readonly sentAt: number;
}

export interface CallOptions {
  readonly dialect: ReplayDialect;
  /** Whether the client marks its prompt for the cache. Only Anthropic's clients can. */
  readonly hints: boolean;
  readonly model?: string;
  /** Whether the client's restarts are inferred ({@link restartsOf}). Default true. */
  readonly restarts?: boolean;
}

/** Calls that reached the provider and were not refused by it, in order; each body is made when it is asked for. */
export function* recordedCalls(
  turns: readonly SessionTurn[],
  { dialect, hints, model, restarts: infers = true }: CallOptions,
): Generator<RecordedCall> {
  const restarts = infers ? restartsOf(turns) : NONE;
  let starts = 0;
  let sentAt = 0;
  for (const turn of turns) {
    if (restarts.has(turn.index)) starts++;
    // A recording without times is a client that never pauses.
    sentAt = Math.max(sentAt + 1, turn.sentAt ?? sentAt);
    if (turn.stopReason === "error") continue;
    const options = {
      asRecorded: true,
      cacheControl: hints,
      system: `${SYSTEM_PROMPT}\n\nSession number ${starts + 1} of this directory.`,
      ...(model !== undefined && { model }),
    };
    yield { turn, body: REQUEST[dialect](turns, turn.index, options), sentAt };
  }
}

const NONE: ReadonlySet<number> = new Set();
const REQUEST = {
  "anthropic-messages": anthropicRequest,
  "openai-chat": openaiChatRequest,
  "openai-responses": responsesRequest,
} as const;

/**
 * Turns at which the client's prompt no longer began as before, for no reason that the recording has: within the cache's
 * time, with neither a compaction nor other thinking, the provider read nothing at all. A client does that when it is
 * started anew with the old conversation and puts the time, say, into its system prompt, which recordings leave out.
 */
export function restartsOf(turns: readonly SessionTurn[]): ReadonlySet<number> {
  const found = new Set<number>();
  let before: SessionTurn | undefined;
  for (const turn of turns) {
    if (inputTokens(turn) === 0) continue;
    if (before !== undefined && isRestart(before, turn)) found.add(turn.index);
    before = turn;
  }
  return found;
}

function isRestart(before: SessionTurn, turn: SessionTurn): boolean {
  const wasCached = before.usage.cacheRead + before.usage.cacheWrite > 0;
  const gapMs = (turn.sentAt ?? 0) - (before.sentAt ?? 0);
  return (
    wasCached &&
    turn.usage.cacheRead === 0 &&
    gapMs < CACHE_TTL_MS &&
    turn.thinking === before.thinking &&
    turn.compaction === before.compaction
  );
}

/** What the provider counted of the input; 0 where the call ended before it said so. */
export function inputTokens({ usage }: SessionTurn): number {
  return usage.input + usage.cacheRead + usage.cacheWrite;
}

/** How many bytes of these conversations were one token to the provider, by all that it counted. */
export function bytesPerToken(turns: readonly SessionTurn[]): number {
  const bodies = new Bodies();
  let bytes = 0;
  let tokens = 0;
  for (const { turn, body } of recordedCalls(turns, { dialect: "anthropic-messages", hints: false })) {
    if (inputTokens(turn) === 0) continue;
    // Measured as tokens of one byte each.
    for (const block of readAnthropic(bodies.read(body) as Json, 1).blocks) bytes += block.tokens;
    tokens += inputTokens(turn);
  }
  return tokens === 0 ? 4 : bytes / tokens;
}

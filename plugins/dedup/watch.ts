import type { Exchange, SegmentSpan, Usage } from "@tokenman/plugin-sdk";
import { FIVE_MINUTES_MS, HOUR_MS } from "./lifetime.ts";
import { hashOf, type PromptParts } from "./prompt.ts";

/**
 * A turn with hints of the client's own. Its marks move from turn to turn, so the messages are told by their texts, in
 * which none is.
 */
export interface WatchedTurn {
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly model: string;
  readonly tools: string;
  readonly system: string;
  /** Texts up to the end of the user's last message, their bytes, and the hash of the last of them. */
  readonly texts: number;
  readonly bytes: number;
  readonly tail: string;
}

/** What the provider had of it once it was answered. */
export interface WatchedConversation extends WatchedTurn {
  /** Input tokens that it read from its cache, or wrote there. */
  readonly cachedTokens: number;
  readonly livesMs: number;
}

/** Tells conversations apart by their first texts: the message that these are in is another one with a mark. */
export function watchedKey(exchange: Exchange): string {
  const first = exchange.spans.find(({ message }) => message >= 0);
  return `${exchange.session} ${first === undefined ? "" : exchange.segmentOf(first).hash}`;
}

/** `last` is the index of the user's last message. */
export function watchedTurn(
  exchange: Exchange,
  body: Buffer,
  { model, tools, system }: PromptParts,
  last: number,
  at: number,
): WatchedTurn {
  const { spans } = exchange;
  const texts = spans.findLastIndex(({ message }) => message >= 0 && message <= last) + 1;
  return {
    at,
    model,
    tools: hashOf(body, tools),
    system: hashOf(body, system),
    texts,
    bytes: bytesOf(spans, texts),
    tail: tailOf(exchange, texts),
  };
}

/** Whether the texts begin with those of the turn before. */
export function goesOn(exchange: Exchange, { texts, bytes, tail }: WatchedTurn): boolean {
  const { spans } = exchange;
  return texts <= spans.length && bytesOf(spans, texts) === bytes && tailOf(exchange, texts) === tail;
}

export function watchedConversation(
  turn: WatchedTurn,
  usage: Usage,
  before: WatchedConversation | undefined,
): WatchedConversation {
  const { cacheReadTokens, cacheWrite5mTokens, cacheWrite1hTokens } = usage;
  const kept = before?.livesMs ?? FIVE_MINUTES_MS;
  return {
    ...turn,
    cachedTokens: cacheReadTokens + cacheWrite5mTokens + cacheWrite1hTokens,
    livesMs: cacheWrite1hTokens > 0 ? HOUR_MS : cacheWrite5mTokens > 0 ? FIVE_MINUTES_MS : kept,
  };
}

/** Of the messages' texts alone: what marks are on tools and system is in their hashes. */
function bytesOf(spans: readonly SegmentSpan[], count: number): number {
  let bytes = 0;
  for (let index = 0; index < count; index++) {
    const span = spans[index]!;
    if (span.message >= 0) bytes += span.end - span.start;
  }
  return bytes;
}

function tailOf(exchange: Exchange, count: number): string {
  const span = exchange.spans[count - 1];
  return span === undefined ? "" : exchange.segmentOf(span).hash;
}

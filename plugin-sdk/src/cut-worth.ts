import type { LastTurn } from "./conversations.ts";
import type { Segment } from "./dialect.ts";
import type { Pricing } from "./pricing.ts";
import type { Turns } from "./turns.ts";

/** What a cut takes away and what is left behind it, in bytes of the request: their ratio is about that of the tokens. */
export interface CutSizes {
  readonly left: number;
  readonly kept: number;
}

/** Bytes as which an attachment counts, whatever its size: about what the largest image costs. */
const ATTACHMENT_BYTES = 6_400;

/**
 * What is saved is reckoned low and what must be written anew high: thinking of earlier turns, which providers drop
 * themselves, and attachments, whose bytes say nothing of their tokens, count only where they are kept. `from`: the first
 * message behind the opening that is sent so far.
 */
export function cutSizes(segments: readonly Segment[], turns: Turns, from: number, at: number): CutSizes {
  let left = 0;
  let kept = 0;
  for (const segment of segments) {
    const { message, kind, node } = segment;
    const bytes = node.end - node.start;
    if (message >= at) kept += kind === "attachment" ? Math.min(bytes, ATTACHMENT_BYTES) : bytes;
    else if (message >= from && isCounted(segment, turns)) left += bytes;
  }
  return { left, kept };
}

/** Whether a segment before a cut counts as saved. */
export function isCounted({ kind, message }: Segment, { opening, developers }: Turns): boolean {
  return message >= opening && kind !== "thinking" && kind !== "attachment" && !developers.has(message);
}

/**
 * Whether the provider has nothing cached of a conversation that a cut could spoil: its last turn is longer ago than the
 * cache lives, another model read it, or by the provider's own figures nothing was cached. Of a conversation of which
 * nothing is known something may be cached.
 */
export function isCold(last: LastTurn | undefined, model: string, now: number): boolean {
  if (last === undefined) return false;
  return last.model !== model || now - last.at >= last.ttlMs || isUncached(last);
}

/** Where caching is automatic, a turn without it says nothing about the next. */
function isUncached({ format, cachedTokens }: LastTurn): boolean {
  return format === "anthropic" && cachedTokens === 0;
}

/** Prices of a token, all in the same unit: nano-dollars where they are known. */
export interface CutPrices {
  readonly input: number;
  readonly read: number;
  readonly write: number;
  readonly output: number;
}

/** Anthropic's ratios for five minutes, which no vendor's are worse than. */
const USUAL: CutPrices = { input: 1, read: 0.1, write: 1.25, output: 5 };
const FIVE_MINUTES_MS = 300_000;

/**
 * What a conversation's tokens cost: as at its last turn, or by the usual ratios. Where nothing is cached, all is plain
 * input.
 */
export function cutPrices(last: LastTurn | undefined, pricing: Pricing | undefined, now: number): CutPrices {
  if (last === undefined) return USUAL;
  const { model, provider, format, inputTokens, ttlMs } = last;
  const rates = pricing?.rates({ model, provider, format, at: now }, { inputTokens });
  const isPriced = rates !== undefined && rates.input > 0;
  const input = isPriced ? rates.input : USUAL.input;
  const output = isPriced ? rates.output : USUAL.output;
  if (isUncached(last)) return { input, read: input, write: input, output };
  if (!isPriced) return USUAL;
  const written = ttlMs > FIVE_MINUTES_MS && format === "anthropic" ? rates.cacheWrite1h : rates.cacheWrite5m;
  return { input, read: rates.cacheRead, write: Math.max(input, written), output };
}

/** About what bytes of text are in tokens. */
export const BYTES_PER_TOKEN = 4;

/**
 * The number of further turns after which a cut in a warm cache has paid: what is behind it is written anew once, for more
 * than it costs to read it, and what is left out need not be read at each turn. At Anthropic's prices 11.5 × kept / left.
 * `spent`: what else the cut costs, in the unit of the prices.
 */
export function turnsToPay({ left, kept }: CutSizes, { read, write }: CutPrices, spent = 0): number {
  const spoilt = (kept / BYTES_PER_TOKEN) * Math.max(0, write - read);
  return (spoilt + spent) / ((left / BYTES_PER_TOKEN) * read);
}

const MAX_EXPECTED = 20;

/**
 * How many further requests are taken for granted: a quarter of those that there were, and 20 at the most. Of things that
 * may end at any time, four of five last that much longer (if nothing is known but how long they have lasted).
 */
export function expectedTurns(answers: number): number {
  return Math.min(MAX_EXPECTED, Math.floor(answers / 4));
}

/** Why a conversation may be cut now; undefined where it had better not. */
export type CutReason = "cold" | "pays";

/** Whether a cut does no harm, or does more good than harm. */
export function cutReason(
  sizes: CutSizes,
  about: {
    readonly last: LastTurn | undefined;
    readonly model: string;
    readonly answers: number;
    readonly pricing: Pricing | undefined;
    readonly now: number;
  },
): CutReason | undefined {
  const { last, model, answers, pricing, now } = about;
  if (sizes.left === 0) return undefined;
  if (isCold(last, model, now)) return "cold";
  return turnsToPay(sizes, cutPrices(last, pricing, now)) <= expectedTurns(answers) ? "pays" : undefined;
}

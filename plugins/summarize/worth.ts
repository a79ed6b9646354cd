import {
  BYTES_PER_TOKEN,
  type CutSizes,
  cutPrices,
  expectedTurns,
  type LastTurn,
  type Pricing,
  type Segment,
  turnsToPay,
} from "@tokenman/plugin-sdk";
import type { SummarizeConfig } from "./schema.ts";
import { transcriptSize } from "./transcript.ts";

/** What is summarised must be so many times as long as the longest summary. */
const WORTH = 4;
/** How much sooner than expected a summary has to pay for itself. */
const MARGIN = 1.5;
/** So many pauses longer than the cache lives promise another one. */
const PAUSES = 2;

/** A summary of the messages [from, at) that could be asked for. */
export interface Wish {
  readonly segments: readonly Segment[];
  readonly from: number;
  readonly at: number;
  readonly sizes: CutSizes;
  /** Answers of the conversation so far. */
  readonly answers: number;
  readonly last: LastTurn | undefined;
  /** Whether another one waits to be sent. */
  readonly hasDraft: boolean;
}

/**
 * Why a summary is not worth its call: there is too little to summarise, or what it saves at the turns to come does not pay
 * for it, with a margin. Undefined where it is: it can be sent from the next turn on. A conversation that paused again and
 * again will pause once more, and can then be cut for nothing.
 */
export function whyNot(
  { segments, from, at, sizes, answers, last, hasDraft }: Wish,
  { summary_model: model, summary_max_tokens: maxTokens }: SummarizeConfig,
  pricing: Pricing | undefined,
  now: number,
): "small" | "dear" | undefined {
  const summaryBytes = BYTES_PER_TOKEN * maxTokens;
  if (sizes.left < WORTH * summaryBytes) return "small";
  if (!hasDraft && (last?.pauses ?? 0) >= PAUSES) return undefined;
  const own = cutPrices(last, pricing, now);
  const other = model === "" || last === undefined ? undefined : pricing?.rates({ ...last, model, at: now });
  const { input, output } = other ?? own;
  const spent = (transcriptSize(segments, from, at) / BYTES_PER_TOKEN) * input + maxTokens * output;
  const changed = { left: sizes.left - summaryBytes, kept: sizes.kept + summaryBytes };
  return MARGIN * turnsToPay(changed, own, spent) <= expectedTurns(answers) ? undefined : "dear";
}

import type { Conversation, Cut } from "./conversations.ts";
import { isCounted } from "./cut-worth.ts";
import type { Exchange } from "./exchange.ts";
import { addSaving } from "./ledger.ts";
import { addRewrite, type Rewrite, type SavingsGuard } from "./savings.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { canCut, cutPatches, hashOfMessages, type Turns } from "./turns.ts";

/**
 * The cut of a conversation, if it is still to be made in this request: the message that it was made at is where it was. A
 * client may change what is left out without harm, so long as the rest can stand without it.
 */
export function standingCut(exchange: Exchange, turns: Turns, { cut }: Conversation): Cut | undefined {
  if (cut === undefined || cut.at <= turns.opening || cut.at >= turns.end) return undefined;
  const { segments } = exchange;
  if (hashOfMessages(segments, cut.at, cut.at + 1) !== cut.start) return undefined;
  const left = hashOfMessages(segments, turns.opening, cut.at);
  if (left === cut.left) return cut;
  return canCut(exchange, turns, cut.at) ? { ...cut, left } : undefined;
}

/**
 * A cut at message `at` with `text` in the place of what is left out; undefined where its tokens cannot be counted, not
 * within `timeoutMs` if that is given, or none are saved. Never rejects.
 */
export async function measuredCut(
  exchange: Exchange,
  turns: Turns,
  at: number,
  text: string,
  tokenizer: Tokenizer,
  timeoutMs?: number,
): Promise<Cut | undefined> {
  const { segments, edited } = exchange;
  const texts = segments
    .filter((segment) => segment.message < at && isCounted(segment, turns))
    // What earlier plugins made of a text is what is not sent now.
    .map((segment) => ({ text: segment.text, ...(!edited && { hash: segment.hash }) }));
  const counting = tokenizer.count(exchange.description?.model ?? "", [{ text }, ...texts]);
  const counts = await inTime(counting, timeoutMs);
  if (counts === undefined) return undefined;
  const tokens = counts.reduce((sum, count) => sum + count, 0) - 2 * counts[0]!;
  if (tokens <= 0) return undefined;
  return {
    at,
    start: hashOfMessages(segments, at, at + 1),
    left: hashOfMessages(segments, turns.opening, at),
    tokens,
    text,
    isKept: true,
  };
}

async function inTime<T>(promise: Promise<T>, timeoutMs: number | undefined): Promise<T | undefined> {
  const late = Promise.withResolvers<undefined>();
  const timer = timeoutMs === undefined ? undefined : setTimeout(late.resolve, timeoutMs, undefined);
  try {
    return await Promise.race([promise, late.promise]);
  } catch {
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}

/** Makes the cut in the request: what the assistant seems to have said is the text that stands for the rest. */
export function applyCut(exchange: Exchange, turns: Turns, { at, text }: Cut): void {
  const message = { role: "assistant", content: text };
  exchange.patch(cutPatches(turns, at, turns.list === "input" ? { type: "message", ...message } : message));
}

/** Notes what a rewrite saved, priced by the bill where somebody sees to that. */
export function noteRewrite(guard: SavingsGuard | undefined, exchange: Exchange, rewrite: Rewrite): void {
  if (guard !== undefined) {
    addRewrite(exchange, rewrite);
    return;
  }
  const { plugin, newTokens, knownTokens } = rewrite;
  addSaving(exchange, { kind: "compression", plugin, tokens: newTokens + knownTokens, nanoUsd: undefined });
}

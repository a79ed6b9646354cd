import type { Attempt, Exchange, Logger, Usage } from "@tokenman/plugin-sdk";
import { type HitRates, inputOf, type MeasuredTurn, resultOf } from "./hit-rate.ts";
import { FIVE_MINUTES_MS, HOUR_MS } from "./lifetime.ts";
import type { Memory } from "./memory.ts";
import type { Plan, Watch } from "./planner.ts";
import { watchedConversation } from "./watch.ts";

/** OpenAI caches nothing shorter. */
const OPENAI_MIN_TOKENS = 1_024;

export interface MeasurerParts {
  readonly memory: Memory;
  readonly rates: HitRates;
  readonly log: Logger;
}

/** Measures by what the provider billed what its cache had of a turn, and why it had little. */
export class Measurer {
  readonly #parts: MeasurerParts;

  constructor(parts: MeasurerParts) {
    this.#parts = parts;
  }

  /** A request that was planned; `isHinted`: that got hints. */
  planned(
    exchange: Exchange,
    { vendor, why, before, after: now, cause, marks, parts }: Plan,
    { usage }: Attempt,
    isHinted: boolean,
  ): void {
    if (usage?.source !== "provider") return;
    const wasCached =
      before !== undefined &&
      (vendor === "openai" ? before.tokens >= OPENAI_MIN_TOKENS : before.message >= 0);
    const expected = wasCached ? before.tokens : 0;
    const livesMs = marks?.messages === "1h" ? HOUR_MS : FIVE_MINUTES_MS;
    const isLate = before !== undefined && now.at - before.at > livesMs;
    const result = resultOf(usage, expected, cause ?? (isLate ? "expired" : undefined));
    const hints = isHinted ? "dedup" : why === "client" ? "client" : "none";
    this.#add(exchange, usage, { model: parts.model, hints, result, expectedTokens: expected });
  }

  /** A request with hints of the client's; remembers it for the next turn. */
  watched(
    exchange: Exchange,
    { model, conversationKey: key, turn, before, cause }: Watch,
    { usage }: Attempt,
  ): void {
    if (usage?.source !== "provider") return;
    this.#parts.memory.sawWatched(key, watchedConversation(turn, usage, before));
    const isLate = before !== undefined && turn.at - before.at > before.livesMs;
    const expected = before?.cachedTokens ?? 0;
    const result = resultOf(usage, expected, cause ?? (isLate ? "expired" : undefined));
    this.#add(exchange, usage, { model, hints: "client", result, expectedTokens: expected });
  }

  #add(
    exchange: Exchange,
    usage: Usage,
    found: Pick<MeasuredTurn, "model" | "hints" | "result" | "expectedTokens">,
  ): void {
    const turn: MeasuredTurn = {
      exchangeId: exchange.id,
      at: exchange.startedAt,
      project: exchange.project,
      session: exchange.session,
      ...found,
      inputTokens: inputOf(usage),
      readTokens: usage.cacheReadTokens,
      writtenTokens: usage.cacheWrite5mTokens + usage.cacheWrite1hTokens,
    };
    this.#parts.rates.add(turn);
    if (turn.result !== "hit" && turn.result !== "first")
      this.#parts.log.debug(turn, `the provider's prompt cache had little of this turn: ${turn.result}`);
  }
}

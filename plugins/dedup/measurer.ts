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

type Found = Pick<MeasuredTurn, "result" | "expectedTokens">;

/** Measures by what the provider billed what its cache had of a turn, and why it had little. */
export class Measurer {
  readonly #parts: MeasurerParts;

  constructor(parts: MeasurerParts) {
    this.#parts = parts;
  }

  /** What the cache had of a request that was planned; undefined where the provider did not say. */
  plannedResult({ vendor, before, after: now, cause, marks }: Plan, { usage }: Attempt): Found | undefined {
    if (usage?.source !== "provider") return undefined;
    const wasCached =
      before !== undefined &&
      (vendor === "openai" ? before.tokens >= OPENAI_MIN_TOKENS : before.message >= 0);
    const expectedTokens = wasCached ? before.tokens : 0;
    const livesMs = marks?.messages === "1h" ? HOUR_MS : FIVE_MINUTES_MS;
    const isLate = before !== undefined && now.at - before.at > livesMs;
    const result = resultOf(usage, expectedTokens, cause ?? (isLate ? "expired" : undefined));
    return { result, expectedTokens };
  }
  /** … of one with hints of the client's. */
  watchedResult({ turn, before, cause }: Watch, { usage }: Attempt): Found | undefined {
    if (usage?.source !== "provider") return undefined;
    const isLate = before !== undefined && turn.at - before.at > before.livesMs;
    const expectedTokens = before?.cachedTokens ?? 0;
    const result = resultOf(usage, expectedTokens, cause ?? (isLate ? "expired" : undefined));
    return { result, expectedTokens };
  }

  /** A request that was planned has been answered; `isHinted`: it got hints. */
  planned(exchange: Exchange, plan: Plan, attempt: Attempt, isHinted: boolean): void {
    const found = this.plannedResult(plan, attempt);
    if (found === undefined) return;
    const hints = isHinted ? "dedup" : plan.why === "client" ? "client" : "none";
    this.#add(exchange, attempt.usage!, { model: plan.parts.model, hints, ...found });
  }
  /** A request with hints of the client's has been answered; remembers it for the next turn. */
  watched(exchange: Exchange, watch: Watch, attempt: Attempt): void {
    const found = this.watchedResult(watch, attempt);
    if (found === undefined) return;
    const usage = attempt.usage!;
    const { model, conversationKey: key, turn, before } = watch;
    this.#parts.memory.sawWatched(key, watchedConversation(turn, usage, before));
    this.#add(exchange, usage, { model, hints: "client", ...found });
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

import {
  type MetricSource,
  PROMPT_CACHE_RESULTS,
  type PromptCacheResult,
  renderMetric,
  type Usage,
} from "@tokenman/plugin-sdk";

/**
 * Why a provider's cache had little of what it was sent the turn before: something in front changed, nothing had been
 * written, too much time had passed, or the provider did not keep it.
 */
export type Break = Exclude<PromptCacheResult, "hit" | "first">;

/** One turn, as its usage tells it. */
export interface MeasuredTurn {
  readonly exchangeId: string;
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly project: string;
  readonly session: string;
  readonly model: string;
  /** Whose hints the cache had. */
  readonly hints: "dedup" | "client" | "none";
  readonly result: PromptCacheResult;
  readonly inputTokens: number;
  readonly readTokens: number;
  readonly writtenTokens: number;
  /** Tokens that the turn before had, and so could have been read. */
  readonly expectedTokens: number;
}

const KEPT = 200;
/** A cache gives back whole blocks or steps: a little less than all is a hit. */
const HIT = 0.5;

/** What is measured of the provider's cache: the last turns, and sums since the start. */
export class HitRates {
  readonly #last: MeasuredTurn[] = [];
  readonly #turns = new Map<PromptCacheResult, number>();
  #input = 0;
  #read = 0;
  #written = 0;

  add(turn: MeasuredTurn): void {
    this.#last.push(turn);
    if (this.#last.length > KEPT) this.#last.shift();
    this.#turns.set(turn.result, (this.#turns.get(turn.result) ?? 0) + 1);
    this.#input += turn.inputTokens;
    this.#read += turn.readTokens;
    this.#written += turn.writtenTokens;
  }

  /** For the API: newest first. `session` picks one session's turns. */
  report(session: string | undefined): object {
    const turns = this.#last.filter((turn) => session === undefined || turn.session === session).reverse();
    return {
      input_tokens: this.#input,
      read_tokens: this.#read,
      written_tokens: this.#written,
      hit_rate: this.#input === 0 ? null : this.#read / this.#input,
      turns_by_result: Object.fromEntries(
        PROMPT_CACHE_RESULTS.map((result) => [result, this.#turns.get(result) ?? 0]),
      ),
      turns: turns.map((turn) => ({
        request: turn.exchangeId,
        at: turn.at,
        project: turn.project,
        session: turn.session,
        model: turn.model,
        hints: turn.hints,
        result: turn.result,
        input_tokens: turn.inputTokens,
        read_tokens: turn.readTokens,
        written_tokens: turn.writtenTokens,
        expected_tokens: turn.expectedTokens,
        hit_rate: turn.inputTokens === 0 ? null : turn.readTokens / turn.inputTokens,
      })),
    };
  }

  metric(): MetricSource {
    return {
      name: "prompt-cache",
      render: () =>
        renderMetric({
          name: "tokenman_prompt_cache_turns_total",
          type: "counter",
          help: "Turns of conversations by what the provider's prompt cache had of them.",
          samples: PROMPT_CACHE_RESULTS.map((result) => ({
            labels: { result },
            value: this.#turns.get(result) ?? 0,
          })),
        }),
    };
  }
}

/** All input tokens of a usage. */
export function inputOf(usage: Usage): number {
  return usage.inputTokens + usage.cacheReadTokens + usage.cacheWrite5mTokens + usage.cacheWrite1hTokens;
}

/** `cause` is what changed since the turn before, where anything did; `expected` that turn's tokens, 0 where none. */
export function resultOf(usage: Usage, expected: number, cause: Break | undefined): PromptCacheResult {
  if (expected === 0) return "first";
  if (usage.cacheReadTokens >= HIT * expected) return "hit";
  return cause ?? "provider";
}

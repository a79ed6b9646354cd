import type { Exchange, PriceQuery, Pricing, Tokenizer } from "@tokenman/plugin-sdk";
import type { Outputs } from "./outputs.ts";
import type { BudgetConfig } from "./schema.ts";

/** Bytes of JSON to a token, where nobody counts: as English and code come out on the average. */
const BYTES_PER_TOKEN = 4;
/** Counting a request costs more than sending it; of a short one, a guess is off by less than its reply's length is. */
const SHORT_BYTES = 8 * 1024;

/** Tokens of a request, before anybody billed them. */
export interface TokenGuess {
  readonly model: string;
  readonly input: number;
  readonly output: number;
  readonly maxOutput: number;
}

/** Nano-dollars, whole. */
export interface CostEstimate {
  /** What is reserved. */
  readonly held: number;
  /** What it will most likely be: stands in for a bill that never came. */
  readonly expected: number;
}

export interface EstimatorParts {
  readonly pricing: Pricing;
  readonly tokenizer: Tokenizer | undefined;
  readonly outputs: Outputs;
  readonly config: BudgetConfig;
}

/** What requests will cost. Estimates decide whether a request goes out; what it did cost is the provider's word. */
export class Estimator {
  readonly #parts: EstimatorParts;

  constructor(parts: EstimatorParts) {
    this.#parts = parts;
  }

  async guess(exchange: Exchange, model: string): Promise<TokenGuess> {
    const { tokenizer, outputs, config } = this.#parts;
    const bytes = exchange.request.body?.length ?? exchange.request.rawBody?.length ?? 0;
    const counted =
      bytes <= SHORT_BYTES ? undefined : await tokenizer?.estimate(exchange, model, SHORT_BYTES);
    const asked = exchange.description?.maxOutputTokens;
    const usual = outputs.expected(model);
    const output = usual ?? config.assumed_output_tokens;
    return {
      model,
      input: counted?.tokens ?? Math.ceil(bytes / BYTES_PER_TOKEN),
      output: Math.min(output, asked ?? output),
      // A client that sets no maximum gets at least what its model usually gives.
      maxOutput: (asked ?? Math.max(config.assumed_output_tokens, usual ?? 0)) * choices(exchange),
    };
  }

  /** Undefined where the price is not known. */
  cost(exchange: Exchange, query: PriceQuery, guess: TokenGuess): CostEstimate | undefined {
    const { pricing, config } = this.#parts;
    const rates = pricing.rates(query, { inputTokens: guess.input });
    if (rates === undefined) return undefined;
    const expected = Math.ceil(guess.input * rates.input + guess.output * rates.output);
    if (config.reserve === "expected") return { held: expected, expected };
    const dearest = Math.max(
      rates.input,
      ...(asksFor(exchange, '"cache_control"') ? [rates.cacheWrite5m] : []),
      ...(asksFor(exchange, '"1h"') ? [rates.cacheWrite1h] : []),
    );
    return { held: Math.ceil(guess.input * dearest + guess.maxOutput * rates.output), expected };
  }
}

/** Whether the words are anywhere in the request: too often rather than too rarely. */
function asksFor(exchange: Exchange, words: string): boolean {
  return exchange.request.body?.includes(words) === true;
}

/** How many answers are asked for at once: each may be as long as the maximum. */
function choices(exchange: Exchange): number {
  const { body } = exchange.request;
  const mayAsk = body === undefined || body.length > SHORT_BYTES || body.includes('"n"');
  const n = mayAsk ? exchange.read("/n") : 1;
  return typeof n === "number" && Number.isInteger(n) && n > 1 ? Math.min(n, 1_000) : 1;
}

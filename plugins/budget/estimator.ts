import type { Exchange, PriceConditions, PriceQuery, Pricing, Tokenizer } from "@tokenman/plugin-sdk";
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
  /** What the client asks to be served with, which prices depend on. */
  readonly service: Service;
  /** `input` is not counted: it is more than there can be. */
  readonly isBound: boolean;
}

export type Service = Pick<PriceConditions, "serviceTier" | "speed">;
type Rates = NonNullable<ReturnType<Pricing["rates"]>>;

const ORDINARY: Service = Object.freeze({});
/** What costs more than the ordinary at one provider or another. */
const DEARER: readonly Service[] = [{ serviceTier: "priority" }, { speed: "fast" }];

/** Nano-dollars, whole. */
export interface CostEstimate {
  /** What is reserved. */
  readonly held: number;
  /** It is more than it can cost at all: the input was not counted. */
  readonly isBound: boolean;
  /** What it will most likely be: stands in for a bill that never came. Undefined where nobody has counted yet. */
  readonly expected: number | undefined;
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

  /**
   * Without counting: as {@link guess} where the request is short or nobody counts, else a bound. A token stands for a
   * byte at least.
   */
  quick(exchange: Exchange, model: string): TokenGuess {
    const bytes = bytesOf(exchange);
    const isBound = bytes > SHORT_BYTES && this.#parts.tokenizer !== undefined;
    return this.#guess(exchange, model, isBound ? bytes : Math.ceil(bytes / BYTES_PER_TOKEN), isBound);
  }
  /** Counts what is long. Never rejects. */
  async guess(exchange: Exchange, model: string): Promise<TokenGuess> {
    const bytes = bytesOf(exchange);
    const { tokenizer } = this.#parts;
    const counted =
      bytes <= SHORT_BYTES ? undefined : await tokenizer?.estimate(exchange, model, SHORT_BYTES);
    return this.#guess(exchange, model, counted?.tokens ?? Math.ceil(bytes / BYTES_PER_TOKEN), false);
  }

  /** Undefined where the price is not known. */
  cost(exchange: Exchange, query: PriceQuery, guess: TokenGuess): CostEstimate | undefined {
    const { config } = this.#parts;
    const rates = this.#rates(query, guess);
    if (rates === undefined) return undefined;
    const likely = Math.ceil(guess.input * rates.input + guess.output * rates.output);
    const { isBound } = guess;
    const expected = isBound ? undefined : likely;
    if (config.reserve === "expected") return { held: likely, isBound, expected };
    const dearest = Math.max(
      rates.input,
      asksFor(exchange, '"cache_control"') ? rates.cacheWrite5m : 0,
      asksFor(exchange, '"1h"') ? rates.cacheWrite1h : 0,
    );
    const held = Math.ceil(guess.input * dearest + guess.maxOutput * rates.output);
    return { held, isBound, expected };
  }

  /** Those of the service that is asked for. Where they are not known, the dearest that are known of the model. */
  #rates(query: PriceQuery, { input: inputTokens, service }: TokenGuess): Rates | undefined {
    const { pricing, config } = this.#parts;
    const usual = pricing.rates(query, { inputTokens });
    if (service === ORDINARY || usual === undefined) return usual;
    const asked = pricing.rates(query, { inputTokens, ...service });
    // A provider that cannot serve it so serves it, and bills it, as usual.
    if (asked !== undefined) return config.reserve === "max" ? dearestOf(usual, asked) : asked;
    return DEARER.reduce((dearest, each) => {
      const known = pricing.rates(query, { inputTokens, ...each }) ?? pricing.rates(query, each);
      return known === undefined ? dearest : dearestOf(dearest, known);
    }, usual);
  }
  #guess(exchange: Exchange, model: string, input: number, isBound: boolean): TokenGuess {
    const { outputs, config } = this.#parts;
    const asked = exchange.description?.maxOutputTokens;
    const usual = outputs.expected(model);
    const output = usual ?? config.assumed_output_tokens;
    // A client that sets no maximum gets at least what its model usually gives.
    const most = asked ?? Math.max(config.assumed_output_tokens, usual ?? 0);
    return {
      model,
      input,
      output: Math.min(output, asked ?? output),
      maxOutput: config.reserve === "max" ? most * choices(exchange) : most,
      service: serviceOf(exchange),
      isBound,
    };
  }
}

function serviceOf({ description }: Exchange): Service {
  const serviceTier = description?.serviceTier;
  const speed = description?.speed;
  return serviceTier === undefined && speed === undefined ? ORDINARY : { serviceTier, speed };
}

function dearestOf(left: Rates, right: Rates): Rates {
  return {
    input: Math.max(left.input, right.input),
    cacheRead: Math.max(left.cacheRead, right.cacheRead),
    cacheWrite5m: Math.max(left.cacheWrite5m, right.cacheWrite5m),
    cacheWrite1h: Math.max(left.cacheWrite1h, right.cacheWrite1h),
    output: Math.max(left.output, right.output),
  };
}

function bytesOf({ request }: Exchange): number {
  return request.body?.length ?? request.rawBody?.length ?? 0;
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

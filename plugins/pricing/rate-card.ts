import { approximate, decimal, type Rational, times } from "./rational.ts";

/** Kinds of tokens that have a price of their own. */
export const KINDS = ["input", "cacheRead", "cacheWrite5m", "cacheWrite1h", "output"] as const;
export type Kind = (typeof KINDS)[number];

/** Nano-dollars for one token of each kind. */
export type Rates = Readonly<Record<Kind, Rational>>;

/** All that a price list says of one model at one time. */
export interface RateCard {
  /** The model's name in the list. */
  readonly model: string;
  readonly source: "config" | "catalogue";
  /** Rates by length of the input, the highest first: those with the highest `above` that the input exceeds bill all of it. */
  readonly lengths: readonly { readonly above: number; readonly rates: Rates }[];
  /** Nano-dollars for one use of each tool that the provider runs. */
  readonly tools: ReadonlyMap<string, Rational>;
  /** Factors by service tier, over those that the vendor publishes. */
  readonly serviceTiers: ReadonlyMap<string, Rational>;
}

/** USD per million tokens, as lists give it; what is not set is derived from the input's price. */
export interface UsdPrices {
  readonly input: number;
  readonly output: number;
  readonly cacheRead?: number | undefined;
  readonly cacheWrite5m?: number | undefined;
  readonly cacheWrite1h?: number | undefined;
}

const NANOS_PER_TOKEN = decimal(1_000);
const NANOS_PER_USE = decimal(1_000_000);
const READ = decimal(0.1);
const WRITE_5M = decimal(1.25);
const WRITE_1H = decimal(2);

/** USD per million tokens in nano-dollars per token. */
export function perToken(usdPerMillion: number): Rational {
  return times(decimal(usdPerMillion), NANOS_PER_TOKEN);
}

/** USD per thousand uses in nano-dollars per use. */
export function perUse(usdPerThousand: number): Rational {
  return times(decimal(usdPerThousand), NANOS_PER_USE);
}

/**
 * The rates of one list entry. Where an entry of a Claude model lacks a price for cached tokens, Anthropic's factors fill
 * it in: 1.25 times the input for a write of five minutes, 2 times for one of an hour, 0.1 times for a read ("Prompt
 * caching" in platform.claude.com/docs/en/about-claude/pricing; the lists of resellers often leave the hour out). Elsewhere a
 * missing price means that cached tokens are ordinary input, as with OpenAI's models that have no cached rate.
 */
export function ratesOf(usd: UsdPrices, isClaude: boolean): Rates {
  const input = perToken(usd.input);
  const or = (price: number | undefined, factor: Rational) =>
    price !== undefined ? perToken(price) : isClaude ? times(input, factor) : input;
  const cacheWrite5m = or(usd.cacheWrite5m, WRITE_5M);
  return Object.freeze({
    input,
    cacheRead: or(usd.cacheRead, READ),
    cacheWrite5m,
    // OpenAI has one lifetime of writes, and so one price.
    cacheWrite1h: isClaude || usd.cacheWrite1h !== undefined ? or(usd.cacheWrite1h, WRITE_1H) : cacheWrite5m,
    output: perToken(usd.output),
  });
}

/** The rates that bill an input of so many tokens, cached ones included. */
export function ratesFor(card: RateCard, inputTokens: number): Rates {
  const fitting = card.lengths.find(({ above }) => inputTokens > above);
  // Every card has an entry from the first token on, which an empty input does not exceed.
  return (fitting ?? card.lengths.at(-1)!).rates;
}

/** Whether an input of so many tokens is billed as a long one. */
export function isLong(card: RateCard, inputTokens: number): boolean {
  return card.lengths.some(({ above }) => above > 0 && inputTokens > above);
}

export function scaled(rates: Rates, factor: Rational): Rates {
  return Object.fromEntries(KINDS.map((kind) => [kind, times(rates[kind], factor)])) as unknown as Rates;
}

export function approximated(rates: Rates): Record<Kind, number> {
  return Object.fromEntries(KINDS.map((kind) => [kind, approximate(rates[kind])])) as Record<Kind, number>;
}

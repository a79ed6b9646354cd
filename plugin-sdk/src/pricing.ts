import type { Usage } from "./dialect.ts";
import type { Attempt, Exchange } from "./exchange.ts";
import { type Provider, speaks } from "./provider.ts";
import { type ServiceToken, service } from "./service.ts";

/** Cost by kind, in nano-dollars (1e-9 USD), whole numbers. `total` is their sum. */
export interface CostByKind {
  readonly input: number;
  readonly cacheRead: number;
  readonly cacheWrite5m: number;
  readonly cacheWrite1h: number;
  readonly output: number;
  /** Tools that the provider runs and bills apart. */
  readonly serverTools: number;
  readonly total: number;
}

/** A price, or the plain statement that none is known. Unknown is never 0. */
export type Price =
  | {
      readonly priced: true;
      readonly cost: CostByKind;
      /** The model as the price list names it, and which list that is. */
      readonly model: string;
      readonly source: "config" | "catalogue";
    }
  | { readonly priced: false; readonly reason: string };

/** What is asked for: which model of which vendor, at which time. */
export interface PriceQuery {
  /** As sent upstream. The model that a usage names is priced in its place. */
  readonly model: string;
  /** Name of the configured provider, and its format ("anthropic", "openai"). */
  readonly provider: string;
  readonly format: string;
  /** Milliseconds since the epoch: prices change with time. */
  readonly at: number;
}

/** The format by which an exchange is priced at a provider: the client's own, where the provider speaks it. */
export function priceFormat({ format }: Pick<Exchange, "format">, provider: Provider): string {
  return format !== undefined && speaks(provider, format.name) ? format.name : provider.format;
}

/** The model's name as an attempt sent it upstream. */
export function sentModel(exchange: Exchange, { candidate }: Pick<Attempt, "candidate">): string | undefined {
  return candidate.model ?? exchange.description?.model;
}

/** What to ask for an attempt's price. A usage that names its model is priced by that one. */
export function priceQuery(
  exchange: Exchange,
  attempt: Pick<Attempt, "candidate" | "provider" | "startedAt">,
): PriceQuery {
  const { provider, startedAt } = attempt;
  const model = sentModel(exchange, attempt) ?? "";
  return { model, provider: provider.name, format: priceFormat(exchange, provider), at: startedAt };
}

/** All of the input: plain, read from the provider's cache and written to it. */
export function totalInput(usage: Usage): number {
  return usage.inputTokens + usage.cacheReadTokens + usage.cacheWrite5mTokens + usage.cacheWrite1hTokens;
}

/**
 * The rates that an attempt's usage is billed at: of the model that answered, where the provider names it, at its tier,
 * speed, region and length. So a saving is counted at the prices that the bill has. Undefined where that has none.
 */
export function billedRates(
  pricing: Pricing,
  exchange: Exchange,
  attempt: Pick<Attempt, "candidate" | "provider" | "startedAt">,
  usage: Usage,
): Rates | undefined {
  const { model, serviceTier, speed, region } = usage;
  const inputTokens = totalInput(usage);
  return pricing.rates(priceQuery(exchange, attempt), { model, inputTokens, serviceTier, speed, region });
}

/** Nano-dollars a token of each kind; not always whole. */
export type Rates = Omit<CostByKind, "total" | "serverTools">;

/** What else a rate depends on, as far as it is known before the reply. What is left out counts as the ordinary case. */
export interface PriceConditions {
  /** The model that answered, as the provider names it: priced in the place of the one that was sent. */
  readonly model?: string | undefined;
  /** Total input, cached tokens included: long contexts cost more. */
  readonly inputTokens?: number | undefined;
  readonly serviceTier?: string | undefined;
  readonly speed?: string | undefined;
  readonly region?: string | undefined;
}

/** Prices from the bundled catalogue and the config. Synchronous and cheap: it is on the way of every exchange. */
export interface Pricing {
  price(query: PriceQuery, usage: Usage): Price;
  /**
   * Nano-dollars a token of each kind, for reservations and counterfactuals; not always whole. Undefined where unpriced.
   */
  rates(query: PriceQuery, conditions?: PriceConditions): Rates | undefined;
}
export const Pricing: ServiceToken<Pricing> = service<Pricing>("Pricing");

import type { Usage } from "./dialect.ts";
import type { Exchange } from "./exchange.ts";
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

/** What else a rate depends on, as far as it is known before the reply. What is left out counts as the ordinary case. */
export interface PriceConditions {
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
  rates(
    query: PriceQuery,
    conditions?: PriceConditions,
  ): Omit<CostByKind, "total" | "serverTools"> | undefined;
}
export const Pricing: ServiceToken<Pricing> = service<Pricing>("Pricing");

import type { Usage } from "./dialect.ts";
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
      readonly cost: CostByKind /** Model of the catalogue, and where its price is from. */;
      readonly model: string;
      readonly source: "config" | "catalogue";
    }
  | { readonly priced: false; readonly reason: string };

/** What is asked for: which model of which vendor, at which time. */
export interface PriceQuery {
  /** As sent upstream, or better, as the provider named it in its reply. */
  readonly model: string;
  /** Name of the configured provider, and its format ("anthropic", "openai"). */
  readonly provider: string;
  readonly format: string;
  /** Milliseconds since the epoch: prices change with time. */
  readonly at: number;
}

/** Prices from the bundled catalogue and the config. Synchronous and cheap: it is on the way of every exchange. */
export interface Pricing {
  price(query: PriceQuery, usage: Usage): Price;
  /** Nano-dollars a token of each kind, for reservations and counterfactuals; undefined where unpriced. */
  rates(query: PriceQuery): Omit<CostByKind, "total" | "serverTools"> | undefined;
}
export const Pricing: ServiceToken<Pricing> = service<Pricing>("Pricing");

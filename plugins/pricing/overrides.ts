import { spellings } from "./names.ts";
import { perUse, type RateCard, ratesOf } from "./rate-card.ts";
import { decimal } from "./rational.ts";
import type { ModelPrices, PricingConfig } from "./schema.ts";

const MAX_KNOWN = 1_000;

/** Prices from the config, by model. Built once a generation. */
export class Overrides {
  readonly #exact = new Map<string, RateCard>();
  /** The longest first: the more a pattern says, the sooner it counts. */
  readonly #patterns: readonly (readonly [RegExp, RateCard])[];
  /** What was found, by provider and model: spelling a name costs more than all else about a price. */
  readonly #known = new Map<string, RateCard | undefined>();

  constructor(config: PricingConfig) {
    const patterns: [string, RateCard][] = [];
    for (const [name, prices] of Object.entries(config)) {
      const card = cardOf(name, prices);
      if (name.includes("*")) patterns.push([name.toLowerCase(), card]);
      else this.#exact.set(name.toLowerCase(), card);
    }
    patterns.sort(([left], [right]) => right.length - left.length);
    this.#patterns = patterns.map(([name, card]) => [matcher(name), card]);
  }

  find(model: string, provider: string): RateCard | undefined {
    if (this.#exact.size === 0 && this.#patterns.length === 0) return undefined;
    const key = `${provider}\n${model}`;
    const known = this.#known.get(key);
    if (known !== undefined || this.#known.has(key)) return known;
    const found = this.#lookUp(model, provider);
    // Names come from clients: what is remembered must stay small.
    if (this.#known.size >= MAX_KNOWN) this.#known.clear();
    this.#known.set(key, found);
    return found;
  }

  #lookUp(model: string, provider: string): RateCard | undefined {
    const names = spellings(model).flatMap((name) => [`${provider.toLowerCase()}/${name}`, name]);
    for (const name of names) {
      const card = this.#exact.get(name);
      if (card !== undefined) return card;
    }
    return this.#patterns.find(([pattern]) => names.some((name) => pattern.test(name)))?.[1];
  }
}

function matcher(pattern: string): RegExp {
  return new RegExp(`^${pattern.split("*").map(RegExp.escape).join("[^]*?")}$`);
}

function cardOf(model: string, prices: ModelPrices): RateCard {
  const isClaude = model.toLowerCase().includes("claude");
  const rates = (
    from: Pick<ModelPrices, "input" | "output" | "cache_read" | "cache_write_5m" | "cache_write_1h">,
  ) =>
    ratesOf(
      {
        input: from.input,
        output: from.output,
        cacheRead: from.cache_read,
        cacheWrite5m: from.cache_write_5m,
        cacheWrite1h: from.cache_write_1h,
      },
      isClaude,
    );
  const tiers = prices.tiers.map((tier) => ({ above: tier.above, rates: rates(tier) }));
  return Object.freeze({
    model,
    source: "config",
    lengths: [...tiers, { above: 0, rates: rates(prices) }].sort((left, right) => right.above - left.above),
    tools: new Map(Object.entries(prices.tools).map(([name, usd]) => [name, perUse(usd)])),
    serviceTiers: new Map(
      Object.entries(prices.service_tiers).map(([name, factor]) => [name, decimal(factor)]),
    ),
  });
}

import type { CostByKind, Price, PriceConditions, PriceQuery, Pricing, Usage } from "@tokenman/plugin-sdk";
import type { Catalogue } from "./catalogue.ts";
import { factorOf } from "./factors.ts";
import { bareName } from "./names.ts";
import type { Overrides } from "./overrides.ts";
import { approximated, isLong, type RateCard, type Rates, ratesFor, scaled } from "./rate-card.ts";
import { decimal, ONE, type Rational, rounded } from "./rational.ts";

type Resolved = { readonly card: RateCard; readonly rates: Rates } | { readonly reason: string };

/**
 * The service. Each kind of tokens is billed as count times rate, in exact fractions, and rounded to a whole nano-dollar,
 * halves away from zero; the total is the sum of the rounded kinds, so that what is shown adds up.
 */
export class Pricer implements Pricing {
  readonly #overrides: Overrides;
  readonly #catalogue: Catalogue;
  /** Rates times a factor, by the rates they come from and the factor's spelling: few, since tiers are few. */
  readonly #scaled = new WeakMap<Rates, Map<string, Rates>>();

  constructor(overrides: Overrides, catalogue: Catalogue) {
    this.#overrides = overrides;
    this.#catalogue = catalogue;
  }

  price(query: PriceQuery, usage: Usage): Price {
    if (!isWhole(usage)) return unpriced("the usage has a count that is not a whole number");
    const inputTokens =
      usage.inputTokens + usage.cacheReadTokens + usage.cacheWrite5mTokens + usage.cacheWrite1hTokens;
    const { serviceTier, speed, region } = usage;
    const resolved = this.#resolve(query, usage.model, { inputTokens, serviceTier, speed, region });
    if ("reason" in resolved) return unpriced(resolved.reason);
    const { card, rates } = resolved;
    const tools = toolCost(card, usage.serverTools);
    if (typeof tools === "string") return unpriced(tools);
    const input = rounded(usage.inputTokens, rates.input);
    const cacheRead = rounded(usage.cacheReadTokens, rates.cacheRead);
    const cacheWrite5m = rounded(usage.cacheWrite5mTokens, rates.cacheWrite5m);
    const cacheWrite1h = rounded(usage.cacheWrite1hTokens, rates.cacheWrite1h);
    const output = rounded(usage.outputTokens, rates.output);
    // Where one of them is beyond what a double holds exactly, so is their sum, and then there is no price.
    const total = input + cacheRead + cacheWrite5m + cacheWrite1h + output + tools;
    if (total > Number.MAX_SAFE_INTEGER) return unpriced("the cost is beyond nine million dollars");
    const cost = { input, cacheRead, cacheWrite5m, cacheWrite1h, output, serverTools: tools, total };
    return { priced: true, model: card.model, source: card.source, cost };
  }

  rates(
    query: PriceQuery,
    conditions: PriceConditions = {},
  ): Omit<CostByKind, "total" | "serverTools"> | undefined {
    const resolved = this.#resolve(query, conditions.model, conditions);
    return "reason" in resolved ? undefined : approximated(resolved.rates);
  }

  /** The model that answered is priced, where the provider names it; a price from the config may name either. */
  #resolve(query: PriceQuery, answered: string | undefined, conditions: PriceConditions): Resolved {
    const model = answered ?? query.model;
    const found = this.#find(query, model);
    if ("reason" in found) return found;
    const { card, name } = found;
    const inputTokens = conditions.inputTokens ?? 0;
    const { serviceTier, speed, region } = conditions;
    const factor = factorOf(card, name, { serviceTier, speed, region, isLong: isLong(card, inputTokens) });
    if ("unknown" in factor) return { reason: factor.unknown };
    return { card, rates: this.#scale(ratesFor(card, inputTokens), factor.factor) };
  }

  #find({ model: asked, provider, format, at }: PriceQuery, model: string) {
    const override = this.#overrides.find(model, provider) ?? this.#overrides.find(asked, provider);
    if (override !== undefined) return { card: override, name: bareName(model) };
    return this.#catalogue.find(model, provider, format, at);
  }

  #scale(rates: Rates, factor: Rational): Rates {
    if (factor === ONE) return rates;
    const key = `${factor.numerator}/${factor.denominator}`;
    const known = this.#scaled.get(rates) ?? new Map<string, Rates>();
    this.#scaled.set(rates, known);
    const product = known.get(key) ?? scaled(rates, factor);
    known.set(key, product);
    return product;
  }
}

function isWhole(usage: Usage): boolean {
  if (
    !isCount(usage.inputTokens) ||
    !isCount(usage.cacheReadTokens) ||
    !isCount(usage.cacheWrite5mTokens) ||
    !isCount(usage.cacheWrite1hTokens) ||
    !isCount(usage.outputTokens)
  )
    return false;
  for (const tool in usage.serverTools) if (!isCount(usage.serverTools[tool]!)) return false;
  return true;
}
function isCount(count: number): boolean {
  return Number.isSafeInteger(count) && count >= 0;
}

function unpriced(reason: string): Price {
  return { priced: false, reason };
}

const FREE = decimal(0);

/** What the tools cost, or why one of them has no price. */
function toolCost(card: RateCard, uses: Usage["serverTools"]): number | string {
  let total = 0;
  for (const tool in uses) {
    const count = uses[tool]!;
    const rate = card.tools.get(tool) ?? (count === 0 ? FREE : undefined);
    if (rate === undefined) return `the tool "${tool}" of ${card.model} has no known price`;
    total += rounded(count, rate);
  }
  return total;
}

import { createRequire } from "node:module";
import { bareName, cloudOf, isAnotherVersion, prefixOf, spellings } from "./names.ts";
import { perUse, type RateCard, ratesOf, type UsdPrices } from "./rate-card.ts";
import { decimal, type Rational } from "./rational.ts";

type Package = typeof import("@pydantic/genai-prices");
type Prices = import("@pydantic/genai-prices").ModelPrice;

/** The catalogue's names of tools that are billed by the thousand, and the vendors' own in their usage. */
const TOOLS: readonly (readonly [key: string, names: readonly string[]])[] = [
  ["web_searches_kcount", ["web_search_requests", "web_search_calls"]],
  ["storage_searches_kcount", ["file_search_calls"]],
];
/** Anthropic's web search costs $10 per 1,000 on every Claude model, and its web fetch nothing but tokens. */
const CLAUDE_TOOLS: ReadonlyMap<string, Rational> = new Map([
  ["web_search_requests", perUse(10)],
  ["web_fetch_requests", decimal(0)],
]);

/** Weights that anybody may run: the catalogue's price is one host's, and says nothing of an unnamed one. */
const OPEN_WEIGHTS = /^gpt-oss/;

/** Prices that hold for a while are looked up anew each minute. */
const MINUTE = 60_000;
const MAX_CARDS = 2_000;

/** What the catalogue says, and the name under which it was found; the reason where it says nothing. */
export type Found = { readonly card: RateCard; readonly name: string } | { readonly reason: string };

/**
 * The bundled price catalogue: @pydantic/genai-prices, a snapshot that comes with the package and is never fetched. It is
 * loaded at the first question, which takes about 20 ms and 19 MB once, and asked once for each model.
 */
export class Catalogue {
  readonly #load: () => Package;
  #package: Package | undefined;
  readonly #found = new Map<string, Found>();
  /** What was asked last whose price does not change with time: the next request mostly asks the same. */
  #last:
    | { readonly model: string; readonly provider: string; readonly format: string; readonly found: Found }
    | undefined;

  constructor(load: () => Package = loadBundled) {
    this.#load = load;
  }

  find(model: string, provider: string, format: string, at: number): Found {
    const last = this.#last;
    if (last?.model === model && last.provider === provider && last.format === format) return last.found;
    const key = `${provider}\n${format}\n${model}`;
    const known = this.#found.get(key);
    if (known !== undefined) {
      this.#last = { model, provider, format, found: known };
      return known;
    }
    const timedKey = `${key}\n${Math.floor(at / MINUTE)}`;
    const timed = this.#found.get(timedKey);
    if (timed !== undefined) return timed;
    const { found, changes } = this.#lookUp(model, provider, format, at);
    // Names come from clients: what is remembered must stay small.
    if (this.#found.size >= MAX_CARDS) this.#found.clear();
    this.#found.set(changes ? timedKey : key, found);
    return found;
  }

  #lookUp(model: string, provider: string, format: string, at: number): { found: Found; changes: boolean } {
    const names = spellings(model);
    for (const vendor of vendorsFor(model, provider, format)) {
      for (const name of names) {
        if (vendor !== provider.toLowerCase() && OPEN_WEIGHTS.test(name)) continue;
        const entry = this.#entry(vendor, name, at);
        if (entry === undefined) continue;
        const card = cardOf(entry.model.id, entry.model_price, name.includes("claude"));
        if (card === undefined) continue;
        return { found: { card, name: bareName(model) }, changes: Array.isArray(entry.model.prices) };
      }
    }
    return {
      found: { reason: `the price catalogue does not know the model "${model.slice(0, 100)}"` },
      changes: false,
    };
  }

  #entry(providerId: string, name: string, at: number) {
    this.#package ??= this.#load();
    try {
      // No usage: only which entry, and its prices at that time, is asked of the package.
      const entry = this.#package.calcPrice({}, name, { providerId, timestamp: new Date(at) });
      return entry === null || isAnotherVersion(name, entry.model.id) ? undefined : entry;
    } catch {
      // The package checks an entry when it is asked for it: one that does not hold together is as good as none.
      return undefined;
    }
  }
}

/**
 * Which vendors' lists to ask, in order: the configured provider's own, the cloud or vendor that the model's spelling
 * names, and that of the provider's wire format, since a gateway of the company bills what the vendor bills.
 */
function vendorsFor(model: string, provider: string, format: string): readonly string[] {
  const vendors = [provider.toLowerCase(), cloudOf(model), prefixOf(model), format];
  return [...new Set(vendors.filter((vendor) => vendor !== undefined && vendor !== ""))] as string[];
}

/** Undefined where an entry has no price per token (speech, moderation). */
function cardOf(model: string, prices: Prices, isClaude: boolean): RateCard | undefined {
  const starts = new Set([0]);
  for (const price of Object.values(prices)) {
    if (typeof price === "object") for (const { start } of price.tiers) starts.add(start);
  }
  const at = (key: string, inputTokens: number): number | undefined => {
    const price = prices[key];
    if (typeof price !== "object") return price;
    return price.tiers.findLast(({ start }) => inputTokens > start)?.price ?? price.base;
  };
  if (at("input_mtok", 0) === undefined) return undefined;
  const lengths = [...starts]
    .sort((left, right) => right - left)
    .map((above) => {
      const usd: UsdPrices = {
        input: at("input_mtok", above + 1) ?? 0,
        // Embeddings have no output.
        output: at("output_mtok", above + 1) ?? 0,
        cacheRead: at("cache_read_mtok", above + 1),
        cacheWrite5m: at("cache_write_mtok", above + 1),
        cacheWrite1h: at("cache_write_1h_mtok", above + 1),
      };
      return { above, rates: ratesOf(usd, isClaude) };
    });
  const tools = new Map(isClaude ? CLAUDE_TOOLS : []);
  for (const [key, names] of TOOLS) {
    const price = at(key, 0);
    if (price !== undefined) for (const name of names) tools.set(name, perUse(price));
  }
  return Object.freeze({ model, source: "catalogue", lengths, tools, serviceTiers: new Map() });
}

/** `require.resolve` of a package's file leads to a copy of it in the bundle: scripts/build-files.ts. */
function loadBundled(): Package {
  const require = createRequire(import.meta.url);
  return require(require.resolve("@pydantic/genai-prices")) as Package;
}

import type { RateCard } from "./rate-card.ts";
import { decimal, ONE, type Rational, ratio, times } from "./rational.ts";

/** What a reply says about how it was served. */
export interface Service {
  readonly serviceTier?: string | undefined;
  readonly speed?: string | undefined;
  readonly region?: string | undefined;
  /** Whether the list's rates for long inputs apply. */
  readonly isLong: boolean;
}

/** A factor on all token rates, or why none is known. */
export type Factor = { readonly factor: Rational } | { readonly unknown: string };

const HALF = decimal(0.5);

/** Tiers that bill the list's own rates. */
const ORDINARY: ReadonlySet<string> = new Set([
  "",
  "auto",
  "default",
  "standard",
  "standard_only",
  "on_demand",
]);

/**
 * OpenAI's priority processing ("fast mode" since July 2026) against the standard rates, by model, the first match counts.
 * Source: openai.com/api-priority-processing, read November 2026; the factor is the same for input, cached input and
 * output in every line of that table. Models that it does not list are not offered there.
 */
const PRIORITY: readonly (readonly [RegExp, Rational])[] = [
  [/^gpt-5[.-]6-(?:sol|terra|luna)/, decimal(2)],
  [/^gpt-5[.-]5(?!-pro)/, decimal(2.5)],
  [/^gpt-5[.-]4(?!-(?:pro|nano|image))/, decimal(2)],
  [/^gpt-5[.-]2(?!-pro)/, decimal(2)],
  [/^gpt-5[.-]1(?!-(?:mini|codex-mini))/, decimal(2)],
  [/^gpt-5-mini/, ratio(9n, 5n)],
  [/^gpt-5(?:$|-codex|-2025)/, decimal(2)],
  [/^gpt-4\.1-nano/, decimal(2)],
  [/^gpt-4\.1/, decimal(1.75)],
  [/^gpt-4o-2024-05-13/, decimal(1.75)],
  [/^gpt-4o-mini(?!-\D)/, ratio(5n, 3n)],
  [/^gpt-4o(?!-\D)/, decimal(1.7)],
  [/^o3(?!-\D)/, decimal(1.75)],
  [/^o4-mini(?!-\D)/, ratio(20n, 11n)],
];

/**
 * Anthropic's fast mode against the standard rates. Source: platform.claude.com/docs/en/build-with-claude/fast-mode and
 * the resellers' price lists of the fast models, read November 2026.
 */
const FAST: readonly (readonly [RegExp, Rational])[] = [
  [/^claude-opus-4[.-][67]/, decimal(6)],
  [/^claude-opus-(?:4[.-]8|5(?:$|-\d{8}))/, decimal(2)],
];

/** Models older than Anthropic's regional prices: they cost the same everywhere. */
const ONE_PRICE_EVERYWHERE =
  /^claude-(?:v\d|2|3|instant|4[.-]\D|haiku-4|(?:opus|sonnet)-4[.-][015]\b|(?:opus|sonnet)-4(?:$|-2025))/;
const US_ONLY = decimal(1.1);

/**
 * What service tier, speed and region do to the rates. `model` is the name that was priced, without prefixes.
 * A tier that is paid by contract, or that has no public price, is unknown: the list's rates would be a guess.
 */
export function factorOf(card: RateCard, model: string, service: Service): Factor {
  const tier = tierFactor(card, model, service);
  if ("unknown" in tier) return tier;
  const speed = speedFactor(model, service.speed);
  if ("unknown" in speed) return speed;
  const region = regionFactor(model, service.region);
  if ("unknown" in region) return region;
  return { factor: times(times(tier.factor, speed.factor), region.factor) };
}

function tierFactor(card: RateCard, model: string, { serviceTier = "", isLong }: Service): Factor {
  const own = card.serviceTiers.get(serviceTier);
  if (own !== undefined) return { factor: own };
  if (ORDINARY.has(serviceTier)) return { factor: ONE };
  // Half price for all kinds of tokens: Anthropic's and OpenAI's Batch API, and OpenAI's flex processing.
  if (serviceTier === "batch" || (serviceTier === "flex" && !isClaude(model))) return { factor: HALF };
  if ((serviceTier === "priority" || serviceTier === "fast") && !isClaude(model)) {
    const factor = find(PRIORITY, model);
    // Long inputs are not served there: a reply that claims it is beyond what the list covers.
    if (factor !== undefined && !isLong) return { factor };
  }
  const why =
    isClaude(model) && serviceTier === "priority" ? "it is paid by commitment" : "it has no public price";
  return { unknown: `service tier "${serviceTier}" of ${model}: ${why}` };
}

function speedFactor(model: string, speed: string | undefined): Factor {
  if (speed === undefined || speed === "standard") return { factor: ONE };
  const factor = speed === "fast" ? find(FAST, model) : undefined;
  return factor === undefined ? { unknown: `speed "${speed}" of ${model} has no known price` } : { factor };
}

/** `inference_geo`: the US alone costs a tenth more, from Claude Opus and Sonnet 4.6 on (Anthropic's pricing page). */
function regionFactor(model: string, region: string | undefined): Factor {
  if (region === undefined || region === "global" || region === "not_available") return { factor: ONE };
  if (ONE_PRICE_EVERYWHERE.test(model)) return { factor: ONE };
  if (region === "us") return { factor: US_ONLY };
  return { unknown: `region "${region}" has no known price` };
}

function isClaude(model: string): boolean {
  return model.includes("claude");
}

function find(table: readonly (readonly [RegExp, Rational])[], model: string): Rational | undefined {
  return table.find(([pattern]) => pattern.test(model))?.[1];
}

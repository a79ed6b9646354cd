import { nearest, type Provider, TokenmanError } from "@tokenman/plugin-sdk";
import { ConfiguredProvider } from "./configured-provider.ts";
import type { MapEntry, ModelMap } from "./model-map.ts";

/** What the config may name. */
export interface Known {
  /** `routing.default_provider`. */
  readonly default: string;
  /** Names of providers, those that are disabled among them. */
  readonly names: readonly string[];
  /** Whether it is a provider's name, or its second one. */
  isProvider(name: string): boolean;
  /** Whether some provider lists the model. */
  isListed(model: string): boolean;
  readonly formats: readonly string[];
  /** Providers of formats that do not exist. */
  readonly speechless: readonly Pick<Provider, "name" | "format">[];
}

/** All that is wrong with where the config sends requests: each TM_CONFIG_INVALID, with the key that it is about. */
export function problemsOf(map: ModelMap, known: Known): TokenmanError[] {
  return [...unknownFormats(known), ...unknownNames(map, known), ...circles(map)];
}

function unknownNames(map: ModelMap, known: Known): TokenmanError[] {
  const { names } = known;
  const used: [readonly string[], string][] = map.entries.flatMap((entry) =>
    entry.provider === undefined && isModel(entry, map, known)
      ? []
      : [[["routing", "model_map", entry.pattern], entry.provider ?? entry.target]],
  );
  used.push([["routing", "default_provider"], known.default]);
  return used.flatMap(([path, name]) =>
    known.isProvider(name) ? [] : [invalid(path, "the name of a provider", name, names)],
  );
}

/**
 * Whether a target that is no provider's name is a model's. That a pattern fits it says little where it is nearly a
 * provider's name: "*" fits misspelt ones too.
 */
function isModel({ target }: MapEntry, map: ModelMap, { names, isListed }: Known): boolean {
  if (map.hasName(target) || isListed(target)) return true;
  return map.find(target) !== undefined && nearest(target, names) === undefined;
}

/** Each circle once. */
function circles(map: ModelMap): TokenmanError[] {
  const told = new Set<string>();
  return map.entries.flatMap((entry) => {
    const circle = map.circle(entry);
    if (circle === undefined || told.has(entry.pattern)) return [];
    for (const pattern of circle) told.add(pattern);
    const way = circle.map((pattern) => JSON.stringify(pattern)).join(" → ");
    return [problem(["routing", "model_map", entry.pattern], `the aliases go in a circle: ${way}`)];
  });
}

/** A provider that exists without being configured goes when its format's plugin is not loaded. */
function unknownFormats({ speechless, formats }: Known): TokenmanError[] {
  return speechless.flatMap((provider) => {
    if (provider instanceof ConfiguredProvider && !provider.isConfigured) return [];
    return [
      invalid(["providers", provider.name, "format"], "the name of a format", provider.format, formats),
    ];
  });
}

function invalid(
  path: readonly string[],
  expected: string,
  found: string,
  known: readonly string[],
): TokenmanError {
  const near = nearest(found, known);
  const hint = near === undefined ? `there are ${known.join(", ")}` : `did you mean ${JSON.stringify(near)}?`;
  return problem(path, `expected ${expected}, found ${JSON.stringify(found)} (${hint})`);
}

/** `path`: the key from the config's top. A pattern, which may have dots, is quoted in the message. */
function problem(path: readonly string[], message: string): TokenmanError {
  const key = path.map((part, index) => (index > 1 && path[1] === "model_map" ? JSON.stringify(part) : part));
  return new TokenmanError("TM_CONFIG_INVALID", `${key.join(".")}: ${message}`, { configPath: path });
}

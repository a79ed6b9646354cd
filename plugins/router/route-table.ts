import {
  type Format,
  nearest,
  type Provider,
  speaks,
  TokenmanError,
  TokenmanErrors,
} from "@tokenman/plugin-sdk";
import { ConfiguredProvider } from "./configured-provider.ts";
import { matchesGlob } from "./glob.ts";
import { ownerOf } from "./owner.ts";
import type { RoutingConfig } from "./schema.ts";

/** A provider that could take a request, before anybody asked with which credential. */
export interface Choice {
  readonly provider: Provider;
  /** The name under which the provider knows the model; undefined keeps the client's. */
  readonly model: string | undefined;
  readonly reason: string;
}

export interface RuledOut {
  readonly provider: string;
  readonly reason: string;
}

/** Where requests of one format for one model go. */
export interface Plan {
  /** In the order in which they are tried. */
  readonly choices: readonly Choice[];
  /** The choice that the client's credential belongs to; -1 where there is none. */
  readonly owner: number;
  readonly ruledOut: readonly RuledOut[];
  /** The first choice was asked for by name: if it cannot be used, no other one takes its place unasked. */
  readonly isBinding: boolean;
}

export interface RouteTableParts {
  readonly routing: RoutingConfig;
  /** All that are in use, in the order in which they were configured or contributed. */
  readonly providers: readonly Provider[];
  readonly formats: readonly Format[];
  /** Names of configured providers with `enabled = false`. */
  readonly disabled: ReadonlySet<string>;
}

/** A plan before it is known whose the client's credential is. */
type Route = Omit<Plan, "owner">;

interface MapEntry {
  readonly pattern: string;
  readonly provider: string;
  readonly model: string | undefined;
}

/** Plans are made once for each format and model; model names come from clients, so the number kept is bounded. */
const MAX_PLANS = 1_000;

/** Decides which providers could serve a request. Knows nothing of credentials and of a provider's health. */
export class RouteTable {
  readonly #routing: RoutingConfig;
  readonly #providers: readonly Provider[];
  readonly #formats: readonly Format[];
  readonly #disabled: ReadonlySet<string>;
  readonly #exact = new Map<string, MapEntry>();
  /** The longest pattern first: it says the most. */
  readonly #globs: readonly MapEntry[];
  readonly #plans = new Map<string, Plan>();

  /** Throws TM_CONFIG_INVALID (all problems at once) where the config names what does not exist. */
  constructor(parts: RouteTableParts) {
    const { routing, formats, disabled } = parts;
    this.#routing = routing;
    this.#formats = formats;
    this.#disabled = disabled;
    const isKnown = (provider: Provider) => formats.some((format) => speaks(provider, format.name));
    this.#providers = parts.providers.filter(isKnown);
    const entries = Object.entries(routing.model_map).map(([pattern, target]) => entryOf(pattern, target));
    for (const entry of entries) if (!entry.pattern.includes("*")) this.#exact.set(entry.pattern, entry);
    this.#globs = entries
      .filter((entry) => entry.pattern.includes("*"))
      .sort((left, right) => right.pattern.length - left.pattern.length);
    const unknown = parts.providers.filter((provider) => !isKnown(provider));
    const problems = [...unknownFormats(unknown, formats), ...this.#unknownNames(entries)];
    if (problems.length > 1) throw new TokenmanErrors(problems);
    if (problems[0] !== undefined) throw problems[0];
  }

  /**
   * Providers for a request. `format` is undefined for an opaque request that no vendor claims, `model` where the
   * request names none.
   */
  plan(format: string | undefined, model: string | undefined): Plan {
    const key = `${format ?? ""} ${model ?? ""}`;
    let plan = this.#plans.get(key);
    if (plan === undefined) {
      plan = this.#make(format, model);
      if (this.#plans.size >= MAX_PLANS) this.#plans.clear();
      this.#plans.set(key, plan);
    }
    return plan;
  }

  #make(format: string | undefined, model: string | undefined): Plan {
    if (format === undefined) return this.#unclaimed();
    const entry = model === undefined ? undefined : this.#entry(model);
    const route = entry === undefined ? this.#unmapped(format, model) : this.#mapped(entry, format, model!);
    const owner = ownerOf(
      route.choices.map((choice) => choice.provider),
      this.#formats.find((one) => one.name === format),
    );
    return { ...route, owner };
  }

  #unmapped(format: string, model: string | undefined): Route {
    const ruledOut: RuledOut[] = [];
    const choices: Choice[] = [];
    const listed = this.#listing(model);
    for (const provider of listed) {
      if (speaks(provider, format))
        choices.push({ provider, model: undefined, reason: `lists the model ${model}` });
      else ruledOut.push(wrongFormat(provider, format));
    }
    for (const provider of this.#taking(format, model)) {
      if (listed.includes(provider)) continue;
      const isDefault = this.#isDefault(provider);
      const reason = isDefault ? "routing.default_provider" : `serves any model of the ${format} format`;
      choices.push({ provider, model: undefined, reason });
    }
    if (choices.length === 0) choices.push(...this.#lastResort(format, ruledOut));
    return { choices, ruledOut, isBinding: false };
  }

  /** An alias is known to its provider alone: others follow only where they list the client's name themselves. */
  #mapped(entry: MapEntry, format: string, model: string): Route {
    const provider = this.#named(entry.provider);
    const reason = `routing.model_map ${JSON.stringify(entry.pattern)}`;
    if (provider === undefined) {
      const why = `${reason} leads to it, but it is disabled`;
      return { choices: [], ruledOut: [{ provider: entry.provider, reason: why }], isBinding: true };
    }
    if (!speaks(provider, format)) {
      return { choices: [], ruledOut: [wrongFormat(provider, format)], isBinding: true };
    }
    const choices: Choice[] = [{ provider, model: entry.model === model ? undefined : entry.model, reason }];
    for (const other of this.#listing(model)) {
      if (other !== provider && speaks(other, format)) {
        choices.push({ provider: other, model: undefined, reason: `lists the model ${model}` });
      }
    }
    return { choices, ruledOut: [], isBinding: true };
  }

  #unclaimed(): Plan {
    const name = this.#routing.default_provider;
    const provider = this.#named(name);
    const reason = "routing.default_provider, as nothing tells whose request it is";
    const choices = provider === undefined ? [] : [{ provider, model: undefined, reason }];
    const ruledOut = provider === undefined ? [{ provider: name, reason: "it is disabled" }] : [];
    return { choices, ruledOut, isBinding: true, owner: -1 };
  }

  /** The vendor's own server takes a model that its configured list does not have: lists age. */
  #lastResort(format: string, ruledOut: RuledOut[]): Choice[] {
    const vendors = this.#providers.find((provider) => provider.name === format && speaks(provider, format));
    if (vendors !== undefined)
      return [{ provider: vendors, model: undefined, reason: `is the ${format} provider` }];
    for (const provider of this.#providers) {
      if (!speaks(provider, format)) ruledOut.push(wrongFormat(provider, format));
      else ruledOut.push({ provider: provider.name, reason: "does not list the model" });
    }
    return [];
  }

  #entry(model: string): MapEntry | undefined {
    return this.#exact.get(model) ?? this.#globs.find((entry) => matchesGlob(entry.pattern, model));
  }

  #listing(model: string | undefined): readonly Provider[] {
    if (model === undefined) return [];
    const lists = (provider: Provider) => provider.models.some((pattern) => matchesGlob(pattern, model));
    return this.#sorted(this.#providers.filter(lists));
  }

  /** Providers of the format that take any model; a request that names none goes to every one of them. */
  #taking(format: string, model: string | undefined): readonly Provider[] {
    const takes = (provider: Provider) =>
      speaks(provider, format) &&
      (provider.models.length === 0 || this.#isDefault(provider) || isUnnamed(provider));
    const isUnnamed = (provider: Provider) => model === undefined && provider.answer === undefined;
    return this.#sorted(this.#providers.filter(takes));
  }

  /** By priority. Among equals the default goes first, then the vendor's own, then the order of the config. */
  #sorted(providers: readonly Provider[]): readonly Provider[] {
    const rank = (provider: Provider) =>
      this.#isDefault(provider) ? 0 : provider.name === provider.format ? 1 : 2;
    return providers.toSorted((left, right) => left.priority - right.priority || rank(left) - rank(right));
  }

  #isDefault(provider: Provider): boolean {
    return provider === this.#named(this.#routing.default_provider);
  }

  #named(name: string): Provider | undefined {
    return (
      this.#providers.find((provider) => provider.name === name) ??
      this.#providers.find((provider) => provider instanceof ConfiguredProvider && provider.alias === name)
    );
  }

  #unknownNames(entries: readonly MapEntry[]): TokenmanError[] {
    const used: [string, string][] = entries.map(({ pattern, provider }) => [
      `routing.model_map.${JSON.stringify(pattern)}`,
      provider,
    ]);
    used.push(["routing.default_provider", this.#routing.default_provider]);
    const names = [...this.#providers.map((provider) => provider.name), ...this.#disabled];
    return used.flatMap(([key, name]) => {
      if (this.#disabled.has(name) || this.#named(name) !== undefined) return [];
      const near = nearest(name, names);
      const hint =
        near === undefined ? `there are ${names.join(", ")}` : `did you mean ${JSON.stringify(near)}?`;
      return [invalid(`${key}: expected the name of a provider, found ${JSON.stringify(name)} (${hint})`)];
    });
  }
}

/** A provider that exists without being configured goes when its format's plugin is not loaded. */
function unknownFormats(providers: readonly Provider[], formats: readonly Format[]): TokenmanError[] {
  const names = formats.map((format) => format.name);
  return providers.flatMap((provider) => {
    if (provider instanceof ConfiguredProvider && !provider.isConfigured) return [];
    const near = nearest(provider.format, names);
    const hint =
      near === undefined ? `there are ${names.join(", ")}` : `did you mean ${JSON.stringify(near)}?`;
    const found = JSON.stringify(provider.format);
    return [
      invalid(`providers.${provider.name}.format: expected the name of a format, found ${found} (${hint})`),
    ];
  });
}

function invalid(message: string): TokenmanError {
  return new TokenmanError("TM_CONFIG_INVALID", message);
}

function entryOf(pattern: string, target: string): MapEntry {
  const slash = target.indexOf("/");
  return slash < 0
    ? { pattern, provider: target, model: undefined }
    : { pattern, provider: target.slice(0, slash), model: target.slice(slash + 1) };
}

function wrongFormat(provider: Provider, format: string): RuledOut {
  return { provider: provider.name, reason: `speaks the ${provider.format} format, not ${format}` };
}

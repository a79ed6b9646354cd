import { type Format, matchesGlob, type Provider, speaks, TokenmanErrors } from "@tokenman/plugin-sdk";
import { ConfiguredProvider } from "./configured-provider.ts";
import { type Admissions, hasKeys } from "./credentials.ts";
import { type Mapping, ModelMap } from "./model-map.ts";
import { awaitsVouching, ownerOf, strangersTo } from "./owner.ts";
import { problemsOf } from "./problems.ts";
import type { RoutingConfig } from "./schema.ts";
import { type Share, spread } from "./spread.ts";

/** A provider that could take a request, before anybody asked with which credential. */
export interface Choice extends Share {
  readonly provider: Provider;
  /** The name under which the provider knows the model; undefined keeps the client's. */
  readonly model: string | undefined;
  readonly reason: string;
  /** Choices of the same step and priority are equals. */
  readonly step: number;
}

export interface RuledOut {
  readonly provider: string;
  readonly reason: string;
}

/** Where requests of one format for one model go. */
export interface Plan {
  /** In the order in which they are tried. */
  readonly choices: readonly Choice[];
  /** The choice that the client's credential belongs to. */
  readonly owner: Choice | undefined;
  /** The first choice, where nothing but `auth = "client"` in its config is missing to make it the owner. */
  readonly unvouched: Choice | undefined;
  /** Vendors whose keys the owner does not get, by whatever path they came. */
  readonly strangers: readonly Format[];
  readonly ruledOut: readonly RuledOut[];
  /** The first choice was asked for by name: if it cannot be used, no other one takes its place unasked. */
  readonly isBinding: boolean;
  /** Whether conversations are spread over equal choices: {@link spreadOver} gives each its own order. */
  readonly isSpread: boolean;
  /** Whether admission asks no more of a request than whether it has a credential of its vendor's. */
  readonly isPlain: boolean;
  /** What was worked out for such requests. */
  readonly admissions: Admissions;
}

export interface RouteTableParts {
  readonly routing: RoutingConfig;
  /** All that are in use, in the order in which they were configured or contributed. */
  readonly providers: readonly Provider[];
  readonly formats: readonly Format[];
  /** Names of configured providers with `enabled = false`. */
  readonly disabled: ReadonlySet<string>;
}

/** A name that model_map gives to a model. */
export interface Alias {
  readonly name: string;
  readonly model: string;
  readonly providers: readonly Provider[];
}

/** A plan before it is known whose the client's credential is. */
type Route = Omit<Plan, "owner" | "unvouched" | "strangers" | "isSpread" | "isPlain" | "admissions">;

const LISTED = 1;
const TAKING = 2;

/** Plans are made once for each format and model; model names come from clients, so the number kept is bounded. */
const MAX_PLANS = 1_000;
const MAX_KEY = 200;

/** The plan for one conversation: among equals, those that have a weight take turns at going first. */
export function spreadOver(plan: Plan, conversation: string): Plan {
  const choices: Choice[] = [];
  for (let from = 0; from < plan.choices.length; ) {
    let to = from + 1;
    while (to < plan.choices.length && areEquals(plan.choices[from]!, plan.choices[to]!)) to++;
    const equals = plan.choices.slice(from, to);
    choices.push(
      ...spread(
        equals.filter(({ weight }) => weight > 0),
        conversation,
      ),
      ...equals.filter(({ weight }) => weight === 0),
    );
    from = to;
  }
  return { ...plan, choices, admissions: noneYet() };
}

function planOf(route: Route, whose: Pick<Plan, "owner" | "unvouched" | "strangers" | "isSpread">): Plan {
  const isPlain = route.choices.every(({ provider, model }) => model === undefined && !hasKeys(provider));
  return { ...route, ...whose, isPlain, admissions: noneYet() };
}

function noneYet(): Admissions {
  return { owned: undefined, bare: undefined };
}

function areEquals(left: Choice, right: Choice): boolean {
  return left.step === right.step && left.provider.priority === right.provider.priority;
}

/** Decides which providers could serve a request. Knows nothing of credentials and of a provider's health. */
export class RouteTable {
  readonly #routing: RoutingConfig;
  readonly #providers: readonly Provider[];
  readonly #formats: readonly Format[];
  readonly #map: ModelMap;
  readonly #plans = new Map<string, Plan>();

  /** Throws TokenmanErrors (TM_CONFIG_INVALID, all problems at once) where the config names what does not exist. */
  constructor(parts: RouteTableParts) {
    const { routing, formats, disabled } = parts;
    this.#routing = routing;
    this.#formats = formats;
    const isKnown = (provider: Provider) => formats.some((format) => speaks(provider, format.name));
    this.#providers = parts.providers.filter(isKnown);
    const isProvider = (name: string) => disabled.has(name) || this.#named(name) !== undefined;
    this.#map = new ModelMap(routing.model_map, isProvider);
    const problems = problemsOf(this.#map, {
      default: routing.default_provider,
      names: [...this.#providers.map((provider) => provider.name), ...disabled],
      isProvider,
      isListed: (model) => this.#listing(model).length > 0,
      formats: formats.map(({ name }) => name),
      speechless: parts.providers.filter((provider) => !isKnown(provider)),
    });
    if (problems.length > 0) throw new TokenmanErrors(problems);
  }

  /** All that speak the format, in the order in which they would be asked. */
  speaking(format: string): readonly Provider[] {
    return this.#sorted(this.#providers.filter((provider) => speaks(provider, format)));
  }
  /** Names that model_map gives to models, what each stands for, and who could be asked by clients of the format. */
  aliases(format: string): readonly Alias[] {
    return this.#map.entries.flatMap(({ pattern }) => {
      const found = pattern.includes("*") ? undefined : this.#map.find(pattern);
      if (found === undefined) return [];
      const { choices } = this.#mapped(found, format, pattern);
      return [{ name: pattern, model: found.model, providers: choices.map(({ provider }) => provider) }];
    });
  }
  /** Whether the provider serves any model, whatever its list says. */
  takesAny(provider: Provider): boolean {
    return provider.models.length === 0 || this.#isDefault(provider);
  }
  /**
   * Configured providers that no request comes to: nothing names them or their models, and where others go first there
   * is no second.
   */
  idle(): readonly string[] {
    if (this.#routing.fallback_enabled) return [];
    const named = new Set(this.#map.entries.map(({ provider }) => this.#named(provider ?? "")));
    return this.#providers.flatMap((provider) => {
      if (!(provider instanceof ConfiguredProvider) || !provider.isConfigured) return [];
      if (provider.models.length > 0 || named.has(provider)) return [];
      const isFirst = this.#formats.some((format) => {
        const [first] = this.#make(format.name, undefined).choices;
        return (
          first !== undefined &&
          (first.provider === provider ||
            (provider.weight > 0 && provider.priority === first.provider.priority))
        );
      });
      return isFirst ? [] : [provider.name];
    });
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
      if (key.length > MAX_KEY) return plan;
      if (this.#plans.size >= MAX_PLANS) this.#plans.clear();
      this.#plans.set(key, plan);
    }
    return plan;
  }

  #make(format: string | undefined, model: string | undefined): Plan {
    if (format === undefined) return this.#unclaimed();
    const found = model === undefined ? undefined : this.#map.find(model);
    const route = found === undefined ? this.#unmapped(format, model) : this.#mapped(found, format, model!);
    const { choices } = route;
    const known = this.#formats.find((one) => one.name === format);
    const owner =
      choices[
        ownerOf(
          choices.map((choice) => choice.provider),
          known,
        )
      ];
    const strangers = known === undefined ? [] : strangersTo(owner?.provider, known, this.#formats);
    const isSpread = choices.some(
      (choice, index) =>
        choice.weight > 0 && choices.some((other, at) => at !== index && areEquals(choice, other)),
    );
    const [first] = choices;
    const unvouched = first !== undefined && awaitsVouching(first.provider, known) ? first : undefined;
    return planOf(route, { owner, unvouched, strangers, isSpread });
  }

  /** `sent`: the name to send where that is not the client's. */
  #unmapped(format: string, model: string | undefined, sent?: string, via = ""): Route {
    const ruledOut: RuledOut[] = [];
    const choices: Choice[] = [];
    const listed = this.#listing(model);
    for (const provider of listed) {
      if (speaks(provider, format))
        choices.push(choiceOf(provider, sent, `${via}lists the model ${model}`, LISTED));
      else ruledOut.push(wrongFormat(provider, format));
    }
    for (const provider of this.#taking(format, model)) {
      if (listed.includes(provider)) continue;
      const isDefault = this.#isDefault(provider);
      const reason = isDefault ? "routing.default_provider" : `serves any model of the ${format} format`;
      choices.push(choiceOf(provider, sent, via + reason, TAKING));
    }
    if (choices.length === 0) choices.push(...this.#lastResort(format, ruledOut, sent));
    return { choices, ruledOut, isBinding: false };
  }

  /** An alias is known to its provider alone: others follow only where they list the client's name themselves. */
  #mapped(mapping: Mapping, format: string, model: string): Route {
    const { entry } = mapping;
    const sent = mapping.model === model ? undefined : mapping.model;
    const reason = `routing.model_map ${JSON.stringify(entry.pattern)}`;
    if (mapping.provider === undefined)
      return this.#unmapped(format, mapping.model, sent, `${reason} means ${mapping.model}: `);
    const provider = this.#named(mapping.provider);
    if (provider === undefined) {
      const why = `${reason} leads to it, but it is disabled`;
      return { choices: [], ruledOut: [{ provider: mapping.provider, reason: why }], isBinding: true };
    }
    if (!speaks(provider, format)) {
      return { choices: [], ruledOut: [wrongFormat(provider, format)], isBinding: true };
    }
    const choices = [choiceOf(provider, sent, reason, 0)];
    for (const other of this.#listing(model)) {
      if (other !== provider && speaks(other, format))
        choices.push(choiceOf(other, undefined, `lists the model ${model}`, LISTED));
    }
    return { choices, ruledOut: [], isBinding: true };
  }

  #unclaimed(): Plan {
    const name = this.#routing.default_provider;
    const provider = this.#named(name);
    const reason = "routing.default_provider, as nothing tells whose request it is";
    const choices = provider === undefined ? [] : [choiceOf(provider, undefined, reason, 0)];
    const ruledOut = provider === undefined ? [{ provider: name, reason: "it is disabled" }] : [];
    return planOf(
      { choices, ruledOut, isBinding: true },
      { owner: undefined, unvouched: undefined, strangers: [], isSpread: false },
    );
  }

  /** The vendor's own server takes a model that its configured list does not have: lists age. */
  #lastResort(format: string, ruledOut: RuledOut[], sent: string | undefined): Choice[] {
    const vendors = this.#providers.find((provider) => provider.name === format && speaks(provider, format));
    if (vendors !== undefined) return [choiceOf(vendors, sent, `is the ${format} provider`, TAKING)];
    for (const provider of this.#providers) {
      if (!speaks(provider, format)) ruledOut.push(wrongFormat(provider, format));
      else ruledOut.push({ provider: provider.name, reason: "does not list the model" });
    }
    return [];
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

  /** By priority. Among equals those with a weight go first, then the default, the vendor's own, the order of the config. */
  #sorted(providers: readonly Provider[]): readonly Provider[] {
    const rank = (provider: Provider) => {
      if (weightOf(provider) > 0) return 0;
      if (this.#isDefault(provider)) return 1;
      return provider.name === provider.format ? 2 : 3;
    };
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
}

function choiceOf(provider: Provider, model: string | undefined, reason: string, step: number): Choice {
  return { provider, name: provider.name, weight: weightOf(provider), model, reason, step };
}

function weightOf(provider: Provider): number {
  return provider instanceof ConfiguredProvider ? provider.weight : 0;
}

function wrongFormat(provider: Provider, format: string): RuledOut {
  return { provider: provider.name, reason: `speaks the ${provider.format} format, not ${format}` };
}

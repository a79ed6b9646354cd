import { type Lifecycle, serviceKey } from "@tokenman/plugin-sdk";
import type { PluginTaps } from "../hooks/pipeline.ts";
import type { LoadedPlugin } from "../load/index.ts";
import { readNeed } from "./dependencies.ts";
import type { Generation } from "./generation.ts";
import { sectionOf } from "./member.ts";
import { type Plan, whyOff } from "./plan.ts";
import { DEFAULT_PROJECT, type Settings } from "./settings.ts";

/** What `tokenman plugins --explain` tells: the JSON form. Names are plugins' names. */
export interface Explanation {
  readonly project: string;
  /** Whether the config names the project; otherwise it has the default project's pipeline. */
  readonly known: boolean;
  /** Undefined where no generation was built: then nothing is known of hooks and contributions. */
  readonly generation: number | undefined;
  /** Those that are on, in the order in which a request passes them. */
  readonly plugins: readonly ExplainedPlugin[];
  /** Each hook's plugins in the order in which they run. */
  readonly hooks: ExplainedHooks | undefined;
  readonly services: readonly ExplainedService[];
  readonly contributions: readonly {
    readonly kind: string;
    readonly name: string;
    readonly plugin: string;
  }[];
  readonly off: readonly { readonly plugin: string; readonly source: string; readonly reason: string }[];
  readonly warnings: readonly string[];
  readonly problems: readonly string[];
}

export interface ExplainedPlugin {
  readonly name: string;
  readonly version: string;
  readonly source: string;
  readonly section: string;
  readonly stage: string | undefined;
  readonly onError: "open" | "closed";
  /** Whether a list fixes its place; otherwise its stage did. */
  readonly listed: boolean;
  /** Who asked for it. */
  readonly from: string;
  readonly failures: number;
  readonly quarantined: string | undefined;
}

export interface ExplainedHooks {
  readonly request: readonly string[];
  readonly beforeUpstream: readonly string[];
  readonly response: readonly string[];
  readonly lifecycle: Readonly<Partial<Record<keyof Lifecycle, readonly string[]>>>;
}

export interface ExplainedService {
  readonly service: string;
  /** Undefined: an optional need that nobody meets. */
  readonly providedBy: string | undefined;
  readonly neededBy: readonly { readonly plugin: string; readonly optional: boolean }[];
}

/** The compiled pipeline of a project in a generation. */
export function explain(generation: Generation, project: string = DEFAULT_PROJECT): Explanation {
  const { plan, settings, compiled, contributions } = generation;
  const taps = (compiled.get(project) ?? compiled.get(DEFAULT_PROJECT)!).taps;
  const handles = new Map(taps.map(({ plugin }) => [plugin.name, plugin]));
  const planned = explainPlan(plan, settings, project);
  const plugins = planned.plugins.map((each) => ({
    ...each,
    failures: handles.get(each.name)?.failures ?? 0,
    quarantined: handles.get(each.name)?.quarantined,
  }));
  return { ...planned, generation: generation.id, plugins, hooks: hooksOf(taps), contributions };
}

/** As far as a pipeline can be told without setting anything up, also where it cannot be set up. */
export function explainPlan(plan: Plan, settings: Settings, project: string = DEFAULT_PROJECT): Explanation {
  const off: { plugin: string; source: string; reason: string }[] = [];
  const plugins: ExplainedPlugin[] = [];
  for (const each of plan.order) {
    const reason = whyOff(each, settings, project);
    if (reason === undefined) plugins.push(pluginOf(each));
    else off.push({ plugin: each.plugin.name, source: each.source, reason });
  }
  for (const { name, source, reason } of plan.leftOut) off.push({ plugin: name, source, reason });
  return {
    project,
    known: project === DEFAULT_PROJECT || settings.projects.includes(project),
    generation: undefined,
    plugins,
    hooks: undefined,
    services: servicesOf(plan),
    contributions: [],
    off,
    warnings: plan.warnings,
    problems: plan.problems.map((problem) => problem.describe()),
  };
}

function pluginOf(loaded: LoadedPlugin): ExplainedPlugin {
  const { plugin, source, listed, from } = loaded;
  return {
    name: plugin.name,
    version: plugin.version,
    source,
    section: sectionOf(plugin),
    stage: plugin.stage,
    onError: plugin.onError ?? "open",
    listed,
    from,
    failures: 0,
    quarantined: undefined,
  };
}

function hooksOf(taps: readonly PluginTaps[]): ExplainedHooks {
  const using = (hook: "request" | "beforeUpstream" | "response") =>
    taps.filter((each) => each[hook].length > 0).map(({ plugin }) => plugin.name);
  const lifecycle: Partial<Record<keyof Lifecycle, string[]>> = {};
  for (const { plugin, lifecycle: own } of taps) {
    for (const name of Object.keys(own) as (keyof Lifecycle)[]) {
      if (own[name]!.length === 0) continue;
      lifecycle[name] ??= [];
      lifecycle[name].push(plugin.name);
    }
  }
  return {
    request: using("request"),
    beforeUpstream: using("beforeUpstream"),
    response: using("response").reverse(),
    lifecycle,
  };
}

function servicesOf({ active, dependencies }: Plan): ExplainedService[] {
  const needs = active.flatMap(({ plugin }) =>
    Object.values(plugin.needs ?? {}).map((need) => {
      const { token, optional } = readNeed(need);
      return { service: serviceKey(token), plugin: plugin.name, optional };
    }),
  );
  const services = [
    ...new Set([...dependencies.providers.keys(), ...needs.map(({ service }) => service)]),
  ].sort();
  return services.map((service) => ({
    service,
    providedBy: dependencies.providers.get(service),
    neededBy: needs
      .filter((need) => need.service === service)
      .map(({ plugin, optional }) => ({ plugin, optional })),
  }));
}

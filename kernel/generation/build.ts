import {
  type HookObserver,
  type HostInfo,
  type Logger,
  TokenmanError,
  TokenmanErrors,
} from "@tokenman/plugin-sdk";
import { compilePipeline, type PluginTaps } from "../hooks/pipeline.ts";
import type { PluginHandle } from "../hooks/plugin-handle.ts";
import type { LoadResult } from "../load/index.ts";
import { ContributionRegistry } from "./contributions.ts";
import { type Compiled, disposeMembers, Generation } from "./generation.ts";
import type { KeepStore } from "./keep.ts";
import { Member, type MemberWorld } from "./member.ts";
import { type Plan, planGeneration, projectsOf, whyOff } from "./plan.ts";
import type { Settings } from "./settings.ts";
import { recordTaps } from "./taps.ts";

/** What all generations of a process share of {@link HostInfo}. */
export type HostBase = Omit<HostInfo, "generation" | "registry">;

export interface GenerationOptions {
  readonly id: number;
  readonly settings: Settings;
  readonly load: LoadResult;
  readonly keep: KeepStore;
  /** `watched` without the plugins' sources, which are added here. */
  readonly host: HostBase;
  readonly log: Logger;
}

/**
 * Plans, sets up and compiles a generation and runs its `ready` taps. Whatever goes wrong, and wherever, all that was
 * acquired is given back, last in first out, before it rejects with TokenmanErrors. Problems that can be told without
 * running a plugin are told all at once, and nothing is set up.
 */
export async function buildGeneration(options: GenerationOptions): Promise<Generation> {
  const { id, settings, load, keep, log } = options;
  const plan = planGeneration(load, settings);
  if (plan.problems.length > 0) throw new TokenmanErrors(plan.problems);
  for (const warning of plan.warnings) log.warn({ generation: id }, warning);

  const registry = new ContributionRegistry(plan.order.map(({ plugin }) => plugin.name));
  const services = new Map<string, unknown>();
  const world: MemberWorld = { settings, registry, services, keep, host: hostOf(options, registry), log };
  const members: Member[] = [];
  try {
    for (const loaded of plan.dependencies.setupOrder) {
      const member = new Member(loaded, log);
      // Before its set-up: one that fails half-way has acquired something, too.
      members.push(member);
      await member.setup(world);
    }
    const compiled = compileAll(plan, settings, members, registry);
    const generation = new Generation({ id, plan, settings, members, registry, services, compiled });
    await generation.ready();
    return generation;
  } catch (error) {
    await disposeMembers(members);
    registry.clear();
    throw asErrors(error);
  }
}

function hostOf({ host, id, load }: GenerationOptions, registry: ContributionRegistry): HostInfo {
  const watched = new Set([...host.watched, ...load.loaded.flatMap(({ inputs }) => inputs)]);
  return Object.freeze({ ...host, generation: id, registry, watched: Object.freeze([...watched]) });
}

/** Pipelines for the default project and all configured ones, so that a request never meets one that fails to compile. */
function compileAll(
  plan: Plan,
  settings: Settings,
  members: readonly Member[],
  registry: ContributionRegistry,
): Map<string, Compiled> {
  const byName = new Map(members.map((member) => [member.name, member]));
  const bySignature = new Map<string, Compiled>();
  const compiled = new Map<string, Compiled>();
  const observers = registry
    .owned("hookObserver")
    .map(({ plugin, value }) => contained(value, byName.get(plugin)!.handle));
  for (const project of projectsOf(settings)) {
    const signature = settings.signature(project);
    let entry = bySignature.get(signature);
    if (entry === undefined) {
      const on = plan.active.filter((each) => whyOff(each, settings, project) === undefined);
      const taps = on.map(({ plugin }) => tapsOf(byName.get(plugin.name)!, settings, project));
      entry = {
        pipeline: compilePipeline(taps, observers),
        taps,
        on: new Set(on.map(({ plugin }) => plugin.name)),
      };
      bySignature.set(signature, entry);
    }
    compiled.set(project, entry);
  }
  return compiled;
}

/** An observer that throws must not hurt the exchange, nor be blamed on the plugin that it observes. */
function contained(observer: HookObserver, handle: PluginHandle): HookObserver {
  return {
    tapped(plugin, hook, exchange, durationMs) {
      if (handle.quarantined !== undefined) return;
      try {
        observer.tapped(plugin, hook, exchange, durationMs);
        handle.succeeded("hookObserver");
      } catch (cause) {
        handle.failed("hookObserver", cause, exchange.id);
      }
    },
  };
}

function tapsOf(member: Member, settings: Settings, project: string): PluginTaps {
  try {
    return recordTaps(member.handle, member.builds, settings.section(member.section, project));
  } catch (cause) {
    if (cause instanceof TokenmanError && cause.plugin !== undefined) throw cause;
    const said = cause instanceof Error ? cause.message : String(cause);
    const message = `plugin "${member.name}": its pipeline function failed for project "${project}": ${said}`;
    throw new TokenmanError("TM_PLUGIN_SETUP", message, { cause, plugin: member.name, hook: "pipeline" });
  }
}

function asErrors(error: unknown): TokenmanErrors {
  if (error instanceof TokenmanErrors) return error;
  if (error instanceof TokenmanError) return new TokenmanErrors([error]);
  const message = error instanceof Error ? error.message : String(error);
  return new TokenmanErrors([new TokenmanError("TM_INTERNAL", message, { cause: error })]);
}

import {
  type Lifecycle,
  type PluginStatus,
  type RegistryView,
  type ReloadEvent,
  type ServiceToken,
  serviceKey,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import type { Pipeline, PluginTaps } from "../hooks/pipeline.ts";
import type { PluginHandle } from "../hooks/plugin-handle.ts";
import { framesOf } from "../load/stack.ts";
import type { ContributionRegistry } from "./contributions.ts";
import { within } from "./deadline.ts";
import type { Member } from "./member.ts";
import { type Plan, projectsOf, whyOff } from "./plan.ts";
import { DEFAULT_PROJECT, type Settings } from "./settings.ts";

/** What was compiled for one effective config. */
export interface Compiled {
  readonly pipeline: Pipeline;
  /** In the request's order; only the plugins that are on. */
  readonly taps: readonly PluginTaps[];
  /** Names of the plugins that are on. */
  readonly on: ReadonlySet<string>;
}

export interface GenerationParts {
  readonly id: number;
  readonly plan: Plan;
  readonly settings: Settings;
  /** In the order of their set-up. */
  readonly members: readonly Member[];
  readonly registry: ContributionRegistry;
  readonly services: ReadonlyMap<string, unknown>;
  /** By project: the default one and all configured ones. Equal configs share an entry. */
  readonly compiled: ReadonlyMap<string, Compiled>;
}

/**
 * One validated set of plugins, config and compiled pipelines. It never changes: a reload builds another one. An
 * exchange leases it from beginning to end; it is disposed of once it is retired and nobody leases it.
 */
export class Generation {
  readonly id: number;
  readonly plan: Plan;
  readonly settings: Settings;
  readonly compiled: ReadonlyMap<string, Compiled>;
  /** Resolves when all resources of its plugins are gone. */
  readonly disposed: Promise<void>;
  readonly #parts: GenerationParts;
  readonly #done = Promise.withResolvers<void>();
  #leases = 0;
  #state: "serving" | "retiring" | "retired" | "disposed" = "serving";

  constructor(parts: GenerationParts) {
    this.id = parts.id;
    this.plan = parts.plan;
    this.settings = parts.settings;
    this.compiled = parts.compiled;
    this.disposed = this.#done.promise;
    this.#parts = parts;
  }

  get registry(): RegistryView {
    return this.#parts.registry;
  }
  /** Contributions by kind, name and plugin, for `explain`. */
  get contributions(): ReturnType<ContributionRegistry["list"]> {
    return this.#parts.registry.list();
  }
  /** Exchanges that use it. */
  get leases(): number {
    return this.#leases;
  }

  /** The hooks of a project; a project that the config does not know has the default one's. */
  pipelineFor(project: string): Pipeline {
    return this.#compiledFor(project).pipeline;
  }

  /** A service, or undefined where no plugin provides it, or the one that does is off for `project`. */
  service<T>(token: ServiceToken<T>, project?: string): T | undefined {
    const key = serviceKey(token);
    const provider = this.plan.dependencies.providers.get(key);
    if (provider === undefined) return undefined;
    if (project !== undefined && !this.#compiledFor(project).on.has(provider)) return undefined;
    return this.#parts.services.get(key) as T | undefined;
  }

  lease(): void {
    if (this.#state === "disposed") {
      throw new TokenmanError("TM_INTERNAL", `generation ${this.id} was leased after it was disposed of`);
    }
    this.#leases++;
  }
  /** Gives a lease back: exactly once for each. */
  release(): void {
    this.#leases--;
    if (this.#leases < 0)
      throw new TokenmanError("TM_INTERNAL", `generation ${this.id} was released too often`);
    if (this.#leases === 0 && this.#state === "retired") void this.dispose();
  }

  /** Runs the `ready` taps. Rejects with the first failure: then this generation must not serve. */
  async ready(): Promise<void> {
    for (const { member, fn } of this.#generationTaps("ready")) {
      try {
        const late = () => member.error(`its ready hook did not end in ${member.setupMs} ms`);
        await within(member.setupMs, (async () => fn())(), late);
      } catch (cause) {
        throw await member.wrap("its ready hook failed", cause);
      }
    }
  }

  /** Runs the `drain` taps; their failures are logged and counted. Never rejects. */
  async drain(): Promise<void> {
    await this.#observe("drain");
  }

  /** Runs the `reload` taps; their failures are logged and counted. Never rejects. */
  async reloaded(event: ReloadEvent): Promise<void> {
    await this.#observe("reload", event);
  }

  /**
   * It was swapped out: runs the `retire` taps, and disposes of it when the last lease ends. Resolves after the taps;
   * wait for `disposed` for the rest. Never rejects.
   */
  async retire(): Promise<void> {
    if (this.#state !== "serving") return;
    this.#state = "retiring";
    await this.#observe("retire");
    // It may have been disposed of by force meanwhile.
    if ((this.#state as string) !== "retiring") return;
    this.#state = "retired";
    if (this.#leases === 0) void this.dispose();
  }

  /** Gives all resources back, whoever still leases it. Never rejects. */
  async dispose(): Promise<void> {
    if (this.#state !== "disposed") {
      this.#state = "disposed";
      await disposeMembers(this.#parts.members);
      this.#parts.registry.clear();
      this.#done.resolve();
    }
    await this.disposed;
  }

  /**
   * The plugin whose source a stray error's stack leads through first; undefined where it leads through none.
   * Built-in plugins are known by it only while they run from their sources.
   */
  ownerOf(cause: unknown): PluginHandle | undefined {
    for (const { file } of framesOf(cause)) {
      const member = this.#parts.members.find(({ name, loaded }) =>
        loaded.source === "built in" ? file.includes(`/plugins/${name}/`) : loaded.inputs.includes(file),
      );
      if (member !== undefined) return member.handle;
    }
    return undefined;
  }

  statuses(): PluginStatus[] {
    const handles = new Map(this.#parts.members.map((member) => [member.name, member.handle]));
    const loaded = this.plan.order.map((each): PluginStatus => {
      const { name, version } = each.plugin;
      const handle = handles.get(name);
      const { source, digest } = each;
      const status = { name, version, source, digest, failures: handle?.failures ?? 0 };
      if (handle?.quarantined !== undefined)
        return { ...status, state: "quarantined", reason: handle.quarantined };
      const reason = whyOff(each, this.settings, DEFAULT_PROJECT);
      if (reason === undefined) return { ...status, state: "on", reason };
      const projects = projectsOf(this.settings).filter((project) =>
        this.compiled.get(project)?.on.has(name),
      );
      if (projects.length === 0) return { ...status, state: "off", reason };
      return { ...status, state: "on", reason: `only for the projects ${projects.join(", ")}: ${reason}` };
    });
    const leftOut = this.plan.leftOut.map(
      ({ name, source, reason }): PluginStatus => ({
        name,
        version: "",
        source,
        digest: undefined,
        state: "off",
        reason,
        failures: 0,
      }),
    );
    return [...loaded, ...leftOut];
  }

  #compiledFor(project: string): Compiled {
    return this.compiled.get(project) ?? this.compiled.get(DEFAULT_PROJECT)!;
  }

  async #observe<K extends "retire" | "drain" | "reload">(
    name: K,
    ...args: Parameters<Lifecycle[K]>
  ): Promise<void> {
    for (const { member, fn } of this.#generationTaps(name)) {
      const { handle } = member;
      if (handle.quarantined !== undefined) continue;
      try {
        const late = () => new Error(`it did not end in ${handle.hookMs} ms`);
        const call = fn as (...args: unknown[]) => unknown;
        await within(handle.hookMs, (async () => call(...args))(), late);
      } catch (cause) {
        handle.failed(`lifecycle ${name}`, cause);
      }
    }
  }

  /**
   * What happens to the generation as a whole happens once to each plugin: its taps are those of the first project
   * for which it is on, the default one if it can be.
   */
  #generationTaps<K extends "ready" | "retire" | "drain" | "reload">(
    name: K,
  ): { member: Member; fn: Lifecycle[K] }[] {
    return this.#parts.plan.active.flatMap(({ plugin }) => {
      const member = this.#parts.members.find((each) => each.name === plugin.name)!;
      for (const { taps } of this.compiled.values()) {
        const own = taps.find((each) => each.plugin === member.handle);
        if (own !== undefined)
          return (own.lifecycle[name] ?? []).map((fn) => ({ member, fn: fn as Lifecycle[K] }));
      }
      return [];
    });
  }
}

/** In the reverse of their set-up, so that nobody loses a service that it still uses. */
export async function disposeMembers(members: readonly Member[]): Promise<void> {
  for (const member of members.toReversed()) await member.effects.dispose();
}

import {
  type ContributionKind,
  type Contributions,
  type HostInfo,
  type KeepEnd,
  type Logger,
  type ServiceToken,
  type SetupContext,
  serviceKey,
  TokenmanError,
  TokenmanErrors,
} from "@tokenman/plugin-sdk";
import { PluginHandle } from "../hooks/plugin-handle.ts";
import type { LoadedPlugin } from "../load/index.ts";
import { throwPlace } from "../load/stack.ts";
import type { ContributionRegistry } from "./contributions.ts";
import { within } from "./deadline.ts";
import { readNeed } from "./dependencies.ts";
import { EffectStack } from "./effects.ts";
import type { KeepStore } from "./keep.ts";
import { pluginLogger } from "./log.ts";
import type { Settings } from "./settings.ts";
import type { PipelineBuild } from "./taps.ts";

const SETUP_MS = 10_000;

/** What a plugin's `setup` works on. */
export interface MemberWorld {
  readonly settings: Settings;
  readonly registry: ContributionRegistry;
  /** Provided so far, by service key. */
  readonly services: Map<string, unknown>;
  readonly keep: KeepStore;
  readonly host: HostInfo;
  readonly log: Logger;
}

/** Where a plugin's config lives. */
export function sectionOf(plugin: LoadedPlugin["plugin"]): string {
  return plugin.section ?? `plugins.configs.${plugin.name}`;
}

/** One plugin in one generation: its set-up, its resources, and what it told the kernel to run. */
export class Member {
  readonly loaded: LoadedPlugin;
  readonly handle: PluginHandle;
  readonly section: string;
  readonly effects: EffectStack;
  readonly builds: PipelineBuild[] = [];
  #settingUp = true;

  constructor(loaded: LoadedPlugin, log: Logger) {
    const { name, onError, timeouts } = loaded.plugin;
    this.loaded = loaded;
    this.section = sectionOf(loaded.plugin);
    const own = pluginLogger(log, name);
    this.handle = new PluginHandle({ name, onError, hookMs: timeouts?.hookMs, log: own });
    this.effects = new EffectStack(name, own);
  }

  get name(): string {
    return this.handle.name;
  }
  get setupMs(): number {
    return this.loaded.plugin.timeouts?.setupMs ?? SETUP_MS;
  }

  /**
   * Runs the plugin's `setup`. Rejects with TM_PLUGIN_SETUP where it throws, rejects, takes over `setupMs`, or leaves
   * a declared service unprovided; the caller then disposes of `effects`, also of those an abandoned set-up still
   * acquires later.
   */
  async setup(world: MemberWorld): Promise<void> {
    const { plugin } = this.loaded;
    const context = this.#context(world);
    try {
      const running = (async () => plugin.setup(context as never))();
      await within(this.setupMs, running, () => this.error(`its setup did not end in ${this.setupMs} ms`));
    } catch (cause) {
      throw await this.wrap("its setup failed", cause);
    } finally {
      this.#settingUp = false;
    }
    const owed = (plugin.provides ?? []).map(serviceKey).filter((key) => !world.services.has(key));
    if (owed.length > 0)
      throw this.error(`its setup ended without providing ${owed.join(", ")}, which it declares`);
  }

  error(message: string): TokenmanError {
    return new TokenmanError("TM_PLUGIN_SETUP", `plugin "${this.name}": ${message}`, { plugin: this.name });
  }

  /** An error of the catalogue stays what it is; any other becomes a TM_PLUGIN_SETUP with its place. */
  async wrap(what: string, cause: unknown): Promise<TokenmanError | TokenmanErrors> {
    if (cause instanceof TokenmanErrors) return cause;
    // A plugin's own TokenmanError may come from another copy of the class, or name no plugin.
    if (cause instanceof TokenmanError && cause.plugin !== undefined) return cause;
    const { source, inputs } = this.loaded;
    const said = cause instanceof Error ? cause.message : String(cause);
    const place = source === "built in" ? undefined : await throwPlace(cause, source, inputs);
    const code = cause instanceof TokenmanError ? cause.code : "TM_PLUGIN_SETUP";
    return new TokenmanError(code, `plugin "${this.name}": ${what}: ${said}`, {
      cause,
      plugin: this.name,
      ...(place !== undefined && { place }),
    });
  }

  #context(world: MemberWorld): SetupContext<unknown, Record<string, never>> {
    const { plugin } = this.loaded;
    const { effects, name } = this;
    const { settings, registry, services, keep } = world;
    const onlyInSetup = (what: string) => {
      if (!this.#settingUp) throw this.error(`${what} was called after its setup had ended`);
    };
    const declared = new Set((plugin.provides ?? []).map(serviceKey));
    const needs = Object.entries(plugin.needs ?? {}).map(([key, need]) => [
      key,
      services.get(serviceKey(readNeed(need).token)),
    ]);
    const extra = plugin.extraSections ?? {};
    return Object.freeze({
      config: settings.section(this.section),
      services: Object.freeze(Object.fromEntries(needs)),
      log: this.handle.log,
      host: world.host,
      section(path: string): unknown {
        if (Object.hasOwn(extra, path)) return settings.section(path);
        throw new RangeError(`plugin "${name}" does not declare "${path}" in its extraSections`);
      },
      effect: effects.acquire.bind(effects) as SetupContext<unknown, never>["effect"],
      every: effects.every.bind(effects),
      async keep<T>(
        key: string,
        make: () => T | Promise<T>,
        drop?: (value: T, end: KeepEnd) => void | Promise<void>,
      ): Promise<T> {
        const hold = await effects.acquire(
          `keep ${key}`,
          () => keep.hold(`${name}/${key}`, make, drop, effects.closing),
          (held) => held.release(),
        );
        return hold.value;
      },
      provide: <T>(token: ServiceToken<T>, value: T): void => {
        const key = serviceKey(token);
        onlyInSetup(`provide(${key})`);
        if (!declared.has(key)) throw this.error(`it provides ${key} without declaring it in its provides`);
        if (value === undefined) throw this.error(`it provides undefined as ${key}`);
        if (services.has(key)) throw this.error(`it provides ${key} twice`);
        services.set(key, value);
      },
      contribute: <K extends ContributionKind>(kind: K, value: Contributions[K]): void => {
        onlyInSetup(`contribute("${kind}")`);
        registry.add(name, kind, value);
      },
      pipeline: (build: PipelineBuild): void => {
        onlyInSetup("pipeline(…)");
        this.builds.push(build);
      },
    }) as never;
  }
}

import type { TokenmanError } from "@tokenman/plugin-sdk";
import type { LoadedPlugin, LoadResult, PluginLeftOut } from "../load/index.ts";
import { type Dependencies, type OffProvider, resolveDependencies } from "./dependencies.ts";
import { sectionOf } from "./member.ts";
import { orderPlugins } from "./order.ts";
import { DEFAULT_PROJECT, type Settings } from "./settings.ts";

/** What a generation will be, worked out before anything is set up. */
export interface Plan {
  /** All loaded plugins in the order in which a request would pass them, those that are off everywhere included. */
  readonly order: readonly LoadedPlugin[];
  /** Those that are on for the default project or a configured one. Only they are set up. */
  readonly active: readonly LoadedPlugin[];
  readonly leftOut: readonly PluginLeftOut[];
  readonly dependencies: Dependencies;
  readonly warnings: readonly string[];
  readonly problems: readonly TokenmanError[];
}

export function planGeneration(load: LoadResult, settings: Settings): Plan {
  const ordered = orderPlugins(load.loaded);
  const projects = projectsOf(settings);
  const active: LoadedPlugin[] = [];
  const off: OffProvider[] = [];
  for (const each of ordered.plugins) {
    if (projects.some((project) => whyOff(each, settings, project) === undefined)) active.push(each);
    else
      off.push({
        plugin: each.plugin,
        reason: whyOff(each, settings, DEFAULT_PROJECT)!,
        configPath: settings.disabled(DEFAULT_PROJECT).has(each.plugin.name)
          ? ["projects", DEFAULT_PROJECT, "disable"]
          : [...sectionOf(each.plugin).split("."), "enabled"],
      });
  }
  for (const { plugin, reason } of load.leftOut) {
    if (plugin !== undefined) off.push({ plugin, reason });
  }
  const dependencies = resolveDependencies(active, off);
  return {
    order: ordered.plugins,
    active,
    leftOut: load.leftOut,
    dependencies,
    warnings: [...ordered.warnings, ...dependencies.warnings],
    problems: [...load.problems, ...dependencies.problems],
  };
}

/** The default project first, then the configured ones. */
export function projectsOf(settings: Settings): readonly string[] {
  return [...new Set([DEFAULT_PROJECT, ...settings.projects])];
}

/** Why a loaded plugin is off for a project, in words that lead to the line to change; undefined where it is on. */
export function whyOff({ plugin }: LoadedPlugin, settings: Settings, project: string): string | undefined {
  const overlay = settings.projects.includes(project) ? project : DEFAULT_PROJECT;
  if (settings.disabled(project).has(plugin.name)) return `[projects.${overlay}] disable names it`;
  const section = sectionOf(plugin);
  if (settings.enabled(section, project)) return undefined;
  return settings.enabled(section)
    ? `[projects.${overlay}.${section}] says enabled = false`
    : `[${section}] enabled is false`;
}

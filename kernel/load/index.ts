export { configChecks } from "./checks.ts";
export {
  type PluginEntry,
  type PluginLeftOut,
  type PluginList,
  type PluginListOptions,
  resolvePluginList,
} from "./entries.ts";
export { type LoadedPlugin, type LoadResult, PluginLoader, type PluginLoaderOptions } from "./loader.ts";
export type { FirstPartyRegistry } from "./registry.ts";
export { sectionSpecs } from "./sections.ts";

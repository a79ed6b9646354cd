import { TokenmanError, type WrittenConfig } from "@tokenman/plugin-sdk";
import type { ConfigCheck } from "../config/index.ts";
import type { LoadedPlugin } from "./loader.ts";

/** The plugins' own checks of the config, each told what the others declare that they will contribute. */
export function configChecks(loaded: readonly LoadedPlugin[]): ConfigCheck[] {
  const names = namesOf(loaded);
  return loaded.flatMap(({ plugin }) => {
    const { check, name } = plugin;
    if (check === undefined) return [];
    return (written) => {
      try {
        return check({ ...written, names });
      } catch (cause) {
        const said = cause instanceof Error ? cause.message : String(cause);
        const message = `plugin "${name}": its check of the config failed: ${said}`;
        return [new TokenmanError("TM_PLUGIN_SETUP", message, { cause, plugin: name })];
      }
    };
  });
}

/** Undefined where somebody's plugin declares nothing: it may contribute anything. Built-in ones that say nothing add nothing. */
function namesOf(loaded: readonly LoadedPlugin[]): WrittenConfig["names"] {
  const formats: string[] = [];
  const providers: Record<string, readonly string[]> = {};
  for (const { plugin, source } of loaded) {
    if (plugin.contributes === undefined && source !== "built in") return undefined;
    formats.push(...(plugin.contributes?.formats ?? []));
    Object.assign(providers, plugin.contributes?.providers);
  }
  return { formats, providers };
}

import { dirname, join } from "node:path";
import type { Logger } from "@tokenman/plugin-sdk";
import { coreFromRaw, type RawConfig } from "../kernel/config/index.ts";
import { type LoadResult, PluginLoader, resolvePluginList } from "../kernel/load/index.ts";
import { firstParty } from "./registry.ts";
import { VERSION } from "./version.ts";

/** Loads the plugins that the config asks for, as an instance would, and sets none of them up. */
export async function loadPlugins(raw: RawConfig, log: Logger): Promise<LoadResult> {
  const { server, plugins } = coreFromRaw(raw);
  const list = await resolvePluginList({
    registry: firstParty,
    order: plugins.order,
    dir: plugins.dir,
    flag: undefined,
    configDir: raw.file === undefined ? undefined : dirname(raw.file),
  });
  const cacheFolder = join(server.data_dir, "cache", "plugins");
  return new PluginLoader({ registry: firstParty, cacheFolder, version: VERSION, log }).load(list);
}

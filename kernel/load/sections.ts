import { type Plugin, z } from "@tokenman/plugin-sdk";
import { type SectionSpec, sectionsOf } from "../config/index.ts";
import type { LoadResult } from "./loader.ts";

/** A third party's plugin without a schema reads its table as it is written. */
const OPEN_TABLE = z.record(z.string(), z.unknown());

/**
 * The config sections of all plugins: the loaded ones', and of the built-in ones that are left out too, so that
 * what the file says about them is still checked.
 */
export function sectionSpecs(load: LoadResult): SectionSpec[] {
  const specs = load.loaded.flatMap(({ plugin, source }) =>
    source === "built in" ? sectionsOf(plugin, true) : thirdPartySections(plugin),
  );
  const taken = new Set(load.loaded.map(({ plugin }) => plugin.name));
  for (const { name, plugin } of load.leftOut) {
    if (plugin !== undefined && !taken.has(name)) specs.push(...sectionsOf(plugin, false));
  }
  return specs;
}

function thirdPartySections(plugin: Plugin): SectionSpec[] {
  return sectionsOf({ ...plugin, configSchema: plugin.configSchema ?? OPEN_TABLE }, true);
}

import type { Plugin } from "@tokenman/plugin-sdk";
import type { HostedKernel, HostOptions, TestHost } from "@tokenman/plugin-sdk/testkit";
import { createKernel } from "../kernel/kernel.ts";
import type { FirstPartyRegistry } from "../kernel/load/index.ts";
import { plannedSections } from "./planned.ts";
import { firstParty } from "./registry.ts";
import { VERSION } from "./version.ts";

/** What the SDK's test kit runs on: a kernel with TokenMan's own plugins. */
export const testHost: TestHost = {
  version: VERSION,
  start: async (options) => (await startHosted(options)).hosted,
};

/** Starts a kernel, and gives it out beside what the test kit sees of it. */
export async function startHosted(options: HostOptions) {
  const { plugins, without, configFile, home, env, pluginsFlag, log } = options;
  const kernel = await createKernel({
    version: VERSION,
    configFile,
    home,
    env: { ...env },
    registry: registryWith(plugins, new Set(without)),
    planned: plannedSections,
    ...(pluginsFlag !== undefined && { pluginsFlag }),
    log,
  });
  const addresses = await kernel.start();
  const hosted: HostedKernel = {
    ...addresses,
    reload: (reason) => kernel.reload(reason),
    status: () => kernel.status(),
    explain: (project) => kernel.explainText(project),
    shutdown: (how) => kernel.shutdown(how),
  };
  return { kernel, hosted };
}

/** The given plugins before TokenMan's own. */
function registryWith(plugins: readonly Plugin[], without: ReadonlySet<string>): FirstPartyRegistry {
  const own = new Map(plugins.map((plugin) => [plugin.name, plugin]));
  return {
    names: () => [...new Set([...own.keys(), ...firstParty.names()])],
    load: async (name) => own.get(name) ?? firstParty.load(name),
    defaultOrder: [
      ...own.keys(),
      ...firstParty.defaultOrder.filter((name) => !without.has(name) && !own.has(name)),
    ],
    alwaysOn: firstParty.alwaysOn.filter((name) => !without.has(name) && !own.has(name)),
  };
}

import type { Plugin } from "@tokenman/plugin-sdk";
import type { HostedKernel, HostedPlugins, HostOptions, TestHost } from "@tokenman/plugin-sdk/testkit";
import { createKernel } from "../kernel/kernel.ts";
import type { FirstPartyRegistry } from "../kernel/load/index.ts";
import { plannedSections } from "./planned.ts";
import { firstParty } from "./registry.ts";
import { sendThrough } from "./test-exchange.ts";
import { VERSION } from "./version.ts";

/** What the SDK's test kit runs on: the kernel, with TokenMan's own plugins. */
export const testHost: TestHost = {
  version: VERSION,
  start: async (options) => (await startHosted(options)).hosted,
  load: loadHosted,
};

/** Starts a kernel, and gives it out beside what the test kit sees of it. */
export async function startHosted(options: HostOptions) {
  const kernel = await kernelOf(options, registryWith(options.plugins, new Set(options.without)));
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

async function loadHosted(options: HostOptions): Promise<HostedPlugins> {
  const kernel = await kernelOf(options, bareRegistry(options.plugins));
  return {
    send: (request, began) => sendThrough(kernel, request, began),
    status: () => kernel.status(),
    reload: (reason) => kernel.reload(reason),
    dispose: () => kernel.shutdown({ drainMs: 0, reason: "the test has ended" }),
  };
}

function kernelOf(options: HostOptions, registry: FirstPartyRegistry) {
  const { configFile, home, env, pluginsFlag, log } = options;
  return createKernel({
    version: VERSION,
    configFile,
    home,
    env: { ...env },
    registry,
    planned: plannedSections,
    ...(pluginsFlag !== undefined && { pluginsFlag }),
    log,
  });
}

/** The given plugins before TokenMan's own. */
function registryWith(plugins: readonly Plugin[], without: ReadonlySet<string>): FirstPartyRegistry {
  const given = new Map(plugins.map((plugin) => [plugin.name, plugin]));
  const own = (names: readonly string[]) => names.filter((name) => !without.has(name) && !given.has(name));
  return {
    names: () => [...given.keys(), ...firstParty.names().filter((name) => !given.has(name))],
    load: async (name) => given.get(name) ?? firstParty.load(name),
    defaultOrder: [...given.keys(), ...own(firstParty.defaultOrder)],
    alwaysOn: own(firstParty.alwaysOn),
  };
}

/** The given plugins and the vendors' dialects. */
function bareRegistry(plugins: readonly Plugin[]): FirstPartyRegistry {
  const vendors = ["anthropic", "openai"];
  const all = registryWith(plugins, new Set());
  const given = plugins.map(({ name }) => name);
  return {
    ...all,
    names: () => [...given, ...vendors],
    defaultOrder: given,
    alwaysOn: vendors.filter((name) => !given.includes(name)),
  };
}

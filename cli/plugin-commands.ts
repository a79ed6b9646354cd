import { type Command, type CommandContext, type Plugin, TokenmanErrors } from "@tokenman/plugin-sdk";
import { validateConfig } from "../kernel/config/index.ts";
import { sectionSpecs } from "../kernel/load/index.ts";
import { createClient } from "./client.ts";
import type { CliCommand, Invocation } from "./command.ts";
import type { PluginCommands } from "./dispatch.ts";
import { describeFailure } from "./failure.ts";
import { createLog } from "./log.ts";
import { plannedSections } from "./planned.ts";
import { loadPlugins } from "./plugin-list.ts";
import { firstParty } from "./registry.ts";
import { readSettings, settingsInSpite } from "./settings.ts";
import { text } from "./value.ts";
import { VERSION } from "./version.ts";

const CONFIG = { flag: "--config <file>", description: "The config file" };

/**
 * The commands that plugins bring: all first-party ones', on or off, and those of the third parties' that the config
 * loads. Where the config or one of those cannot be loaded, the others are there.
 */
export async function pluginCommands(argv: readonly string[]): Promise<PluginCommands> {
  const plugins = new Map<string, Plugin>();
  let missing: string | undefined;
  for (const name of firstParty.names()) plugins.set(name, await firstParty.load(name));
  try {
    const { raw } = readSettings({ config: configIn(argv) });
    const { loaded, problems } = await loadPlugins(raw, createLog("warn"));
    for (const { plugin, source } of loaded) if (source !== "built in") plugins.set(plugin.name, plugin);
    if (problems.length > 0) throw new TokenmanErrors(problems);
  } catch (error) {
    missing = describeFailure(error).text;
  }
  const commands = [...plugins.values()].flatMap((plugin) =>
    (plugin.commands ?? []).map((command) => asCliCommand(plugin, command)),
  );
  return { commands, ...(missing !== undefined && { missing }) };
}

/** The config file is needed before it is known which command's options are to be read. */
function configIn(argv: readonly string[]): string | undefined {
  const at = argv.findIndex((word) => word === "--config" || word.startsWith("--config="));
  if (at === -1) return undefined;
  return argv[at] === "--config" ? argv[at + 1] : argv[at]!.slice("--config=".length);
}

function asCliCommand(plugin: Plugin, command: Command): CliCommand {
  const options = command.options ?? [];
  return {
    ...command,
    options: options.some(({ flag }) => /^--config\b/.test(flag)) ? options : [...options, CONFIG],
    run: async (invocation) => command.run(await contextOf(plugin, invocation)),
  };
}

/** What leads to the instance and to its data folder. */
const VITAL = new Set(["server", "auth"]);

/**
 * Most commands ask an instance that runs, which a file that was broken since does not concern: only those that read
 * their plugin's settings are refused then. Rejects with TokenmanErrors where the file may mean another instance.
 */
async function contextOf(
  plugin: Plugin,
  { args, options, print, color }: Invocation,
): Promise<CommandContext> {
  const settings = settingsInSpite({ config: text(options["config"]) });
  const { raw, server } = settings;
  const log = createLog(server.log_level);
  const load = await loadPlugins(raw, log);
  const { config, problems } = await validateConfig(raw, [...sectionSpecs(load), ...plannedSections]);
  const vital = problems.filter(({ configPath: [top = ""] = [] }) => VITAL.has(top));
  // What remains of a file that does not parse may stand under another header than its own.
  if (settings.broken === undefined && vital.length > 0) throw new TokenmanErrors(vital);
  const broken = settings.broken ?? (problems.length > 0 ? new TokenmanErrors(problems) : undefined);
  const client = createClient(settings);
  return {
    args,
    options,
    get config() {
      if (broken !== undefined) throw broken;
      return config.section(plugin.section ?? `plugins.configs.${plugin.name}`);
    },
    host: { version: VERSION, dataDir: server.data_dir, configFile: raw.file },
    get dashboardUrl() {
      return client.dashboardUrl;
    },
    fetch: client.ask,
    print,
    color,
    log,
  };
}

import { writeSync } from "node:fs";
import { type Command, type CommandContext, type Plugin, TokenmanErrors } from "@tokenman/plugin-sdk";
import { validateConfig } from "../kernel/config/index.ts";
import { sectionSpecs } from "../kernel/load/index.ts";
import { createClient } from "./client.ts";
import type { CliCommand, Invocation } from "./command.ts";
import { describeFailure } from "./failure.ts";
import { createLog } from "./log.ts";
import { plannedSections } from "./planned.ts";
import { loadPlugins } from "./plugin-list.ts";
import { firstParty } from "./registry.ts";
import { readSettings } from "./settings.ts";
import { text } from "./value.ts";
import { VERSION } from "./version.ts";

const CONFIG = { flag: "--config <file>", description: "The config file" };

/**
 * The commands that plugins bring: all first-party ones', on or off, and those of the third parties' that the config
 * loads. Where the config or one of those cannot be loaded, that is said on stderr, and the others are there.
 */
export async function pluginCommands(argv: readonly string[]): Promise<CliCommand[]> {
  const plugins = new Map<string, Plugin>();
  for (const name of firstParty.names()) plugins.set(name, await firstParty.load(name));
  try {
    const { raw } = readSettings({ config: configIn(argv) });
    const { loaded, problems } = await loadPlugins(raw, createLog("warn"));
    for (const { plugin, source } of loaded) if (source !== "built in") plugins.set(plugin.name, plugin);
    if (problems.length > 0) throw new TokenmanErrors(problems);
  } catch (error) {
    writeSync(2, `tokenman: some commands may be missing: ${describeFailure(error).text}\n`);
  }
  return [...plugins.values()].flatMap((plugin) =>
    (plugin.commands ?? []).map((command) => asCliCommand(plugin, command)),
  );
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

/** Rejects with TokenmanErrors where the config is not valid. */
async function contextOf(
  plugin: Plugin,
  { args, options, print, color }: Invocation,
): Promise<CommandContext> {
  const settings = readSettings({ config: text(options["config"]) });
  const { raw, server } = settings;
  const log = createLog(server.log_level);
  const load = await loadPlugins(raw, log);
  const { config, problems } = await validateConfig(raw, [...sectionSpecs(load), ...plannedSections]);
  if (problems.length > 0) throw new TokenmanErrors(problems);
  const { url, ask } = createClient(settings);
  return {
    args,
    options,
    config: config.section(plugin.section ?? `plugins.configs.${plugin.name}`),
    host: { version: VERSION, dataDir: server.data_dir, configFile: raw.file },
    dashboardUrl: url,
    fetch: ask,
    print,
    color,
    log,
  };
}

import { chmodSync, mkdirSync, realpathSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { nearest, readAnswer, TokenmanError, TokenmanErrors } from "@tokenman/plugin-sdk";
import { defaultFile, setProjectPlugin, validateConfig } from "../kernel/config/index.ts";
import { sectionSpecs } from "../kernel/load/index.ts";
import { createClient, type Reloaded, type Status, statusShape } from "./client.ts";
import type { Invocation } from "./command.ts";
import { createLog } from "./log.ts";
import { runningInstance } from "./pid-file.ts";
import { plannedSections } from "./planned.ts";
import { loadPlugins } from "./plugin-list.ts";
import { firstParty } from "./registry.ts";
import { askToReload, outcome } from "./reload.ts";
import { type CliSettings, readSettings } from "./settings.ts";

/**
 * `tokenman project NAME enable|disable PLUGIN`: edits the config file, keeping its comments, and lets a running
 * instance reload. Rejects with TM_USAGE for another action, and a plugin that the config does not load.
 */
export async function project({ args, options, print }: Invocation): Promise<number> {
  const name = String(args["name"]);
  const action = String(args["action"]);
  const plugin = String(args["plugin"]);
  if (action !== "enable" && action !== "disable") {
    throw new TokenmanError(
      "TM_USAGE",
      `expected "enable" or "disable" after the project's name, found "${action}"`,
    );
  }
  const settings = readSettings(options);
  const { raw, server } = settings;
  const load = await loadPlugins(raw, createLog(server.log_level));
  const { alwaysOn } = firstParty;
  const known = load.loaded.map(({ plugin: { name } }) => name).filter((name) => !alwaysOn.includes(name));
  if (action === "disable" && alwaysOn.includes(plugin)) {
    const why = "it is always on: without it no request could be served";
    throw new TokenmanError(
      "TM_USAGE",
      `${plugin} cannot be disabled, ${why}; these can: ${known.join(", ")}`,
    );
  }
  const found = load.loaded.find((each) => each.plugin.name === plugin)?.plugin;
  if (found === undefined) {
    const near = nearest(plugin, known);
    const hint = near === undefined ? `known: ${known.join(", ")}` : `did you mean "${near}"?`;
    throw new TokenmanError("TM_USAGE", `no plugin named "${plugin}" is loaded; ${hint}`);
  }
  const { config, problems } = await validateConfig(raw, [...sectionSpecs(load), ...plannedSections]);
  // Written into a file that does not load, the change would look as if it had worked.
  if (problems.length > 0) throw new TokenmanErrors(problems);

  const section = found.section ?? `plugins.configs.${plugin}`;
  const offByDefault = action === "enable" && config.enabled(section, name) === false;
  const file = raw.file ?? defaultFile(raw.home);
  const edited = await setProjectPlugin(
    raw.text,
    name,
    plugin,
    action === "enable",
    ...(offByDefault ? [section] : []),
  );
  const state = `${plugin} is ${action === "enable" ? "on" : "off"} for project ${name}`;
  if (edited === raw.text) {
    print(`${state} already`);
    return 0;
  }
  const running = runningInstance(server.data_dir) !== undefined;
  const before = running ? await hostStatus(settings) : undefined;
  replaceFile(file, edited);
  print(`${state} (${file})`);
  if (!running) return 0;
  // One edit is one reload: where the instance watches the file, it has begun by itself.
  const event = (before && (await ownReload(settings, before))) ?? (await askToReload(settings));
  print(outcome(event));
  return event.ok ? 0 : 78;
}

/** How long an instance that watches its files may take to reload by itself, before it is asked to. */
const OWN_RELOAD_MS = 5_000;
const POLL_MS = 50;

/** Undefined where it does not answer: then it cannot be asked to reload either, which will say why. */
async function hostStatus(settings: CliSettings): Promise<Status | undefined> {
  try {
    const client = createClient(settings);
    const reply = await client.ask("/api/status");
    return reply.ok ? await readAnswer(client, reply, statusShape) : undefined;
  } catch {
    return undefined;
  }
}

/** The reload that the instance made after it was as `before`; undefined where it makes none. */
async function ownReload(settings: CliSettings, before: Status): Promise<Reloaded | undefined> {
  const watches = before.plugins.some(({ name, state }) => name === "watch" && state === "on");
  const until = performance.now() + (watches ? OWN_RELOAD_MS : 0);
  while (performance.now() < until) {
    const last = (await hostStatus(settings))?.lastReload;
    if (last !== undefined && last.at !== before.lastReload?.at) return last;
    await delay(POLL_MS);
  }
  return undefined;
}

/** Puts the whole content there at once, in the file that a symbolic link leads to, with the same mode. */
function replaceFile(file: string, content: string): void {
  let target = file;
  let mode = 0o600;
  try {
    target = realpathSync(file);
    mode = statSync(target).mode & 0o777;
  } catch {
    // A new file.
  }
  const draft = `${target}.${process.pid}`;
  try {
    mkdirSync(dirname(target), { recursive: true, mode: 0o700 });
    writeFileSync(draft, content, { mode: 0o600 });
    chmodSync(draft, mode);
    renameSync(draft, target);
  } catch (cause) {
    rmSync(draft, { force: true });
    throw new TokenmanError(
      "TM_CONFIG_UNREADABLE",
      `${target} cannot be written: ${(cause as Error).message}`,
      { cause },
    );
  }
}

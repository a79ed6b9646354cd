import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, resolve } from "node:path";
import { TokenmanError } from "@tokenman/plugin-sdk";
import { configExample, defaultFile, expandHome, sectionsOf } from "../kernel/config/index.ts";
import type { Invocation } from "./command.ts";
import { plannedSections } from "./planned.ts";
import { firstParty } from "./registry.ts";
import { configOption } from "./settings.ts";

/** `tokenman init-config`: writes the commented example where the config is looked for. Never overwrites unasked. */
export async function initConfig({ options, print }: Invocation): Promise<void> {
  const named = configOption(options) ?? (process.env["TOKENMAN_CONFIG"] || undefined);
  const file = named === undefined ? defaultFile() : resolve(expandHome(named, homedir()));
  const content = await example();
  try {
    // Keys may be put into it.
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    if (options["force"] === true) keepOld(file, print);
    writeFileSync(file, content, { mode: 0o600, flag: options["force"] === true ? "w" : "wx" });
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === "EEXIST") {
      const advice = "it was left as it is; --force replaces it and keeps the old one as a .bak";
      throw new TokenmanError("TM_DATA_DIR", `${file} exists already; ${advice}`, { cause });
    }
    throw new TokenmanError("TM_DATA_DIR", `${file} cannot be written: ${message}`, { cause });
  }
  print(`wrote ${file}`);
}

function keepOld(file: string, print: Invocation["print"]): void {
  try {
    copyFileSync(file, `${file}.bak`);
    print(`kept the old one as ${file}.bak`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

/** The content of configs/tokenman.example.toml. */
async function example(): Promise<string> {
  const plugins = await Promise.all([...firstParty.names()].sort().map((name) => firstParty.load(name)));
  return configExample([...plugins.flatMap((plugin) => sectionsOf(plugin, true)), ...plannedSections]);
}

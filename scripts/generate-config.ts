/**
 * Writes configs/tokenman.example.toml from the schemas of the core, of the plugins in plugins/, and of the features
 * that are planned. `--check` writes nothing and exits with 1 where the file is not current.
 */
import { access, readdir, readFile, writeFile } from "node:fs/promises";
import type { Plugin } from "@tokenman/plugin-sdk";
import { plannedSections } from "../cli/planned.ts";
import { configExample, type SectionSpec, sectionsOf } from "../kernel/config/index.ts";

const plugins = new URL("../plugins/", import.meta.url);
const target = new URL("../configs/tokenman.example.toml", import.meta.url);

/** The sections of every plugin that this repository holds. */
async function pluginSections(): Promise<SectionSpec[]> {
  const sections: SectionSpec[] = [];
  for (const name of await readdir(plugins)) {
    const entry = new URL(`${name}/index.ts`, plugins);
    if (!(await exists(entry))) continue;
    const { default: plugin } = (await import(entry.href)) as { default: Plugin };
    sections.push(...sectionsOf(plugin, true));
  }
  return sections;
}

async function exists(file: URL): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}

const wanted = configExample([...(await pluginSections()), ...plannedSections]);
const present = await readFile(target, "utf8").catch(() => undefined);

if (process.argv.includes("--check") && present !== wanted) {
  process.stderr.write("configs/tokenman.example.toml is not current: `make example-config` writes it\n");
  process.exitCode = 1;
} else if (present !== wanted) {
  await writeFile(target, wanted);
}

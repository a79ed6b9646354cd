import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ConfigTable, toml } from "./toml.ts";

/** A folder in the place of the user's home, with a config file and a data folder in it. */
export interface TestHome {
  readonly folder: string;
  readonly dataDir: string;
  readonly configFile: string;
  remove(): Promise<void>;
}

export async function testHome(config: string | ConfigTable, dataDir?: string): Promise<TestHome> {
  const folder = await mkdtemp(join(tmpdir(), "tokenman-test-"));
  const home = {
    folder,
    dataDir: dataDir ?? join(folder, "data"),
    configFile: join(folder, "tokenman.toml"),
    remove: () => rm(folder, { recursive: true, force: true }),
  };
  await mkdir(home.dataDir, { recursive: true, mode: 0o700 });
  await writeFile(home.configFile, typeof config === "string" ? config : toml(config), { mode: 0o600 });
  return home;
}

import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { TestContext } from "node:test";
import {
  definePlugin,
  type Logger,
  type Plugin,
  type PluginDefinition,
  TokenmanErrors,
} from "@tokenman/plugin-sdk";
import { type Config, parseConfig, validateConfig } from "../../../kernel/config/index.ts";
import {
  buildGeneration,
  type Generation,
  type HostBase,
  KeepStore,
} from "../../../kernel/generation/index.ts";
import {
  type FirstPartyRegistry,
  type LoadedPlugin,
  type LoadResult,
  type PluginListOptions,
  PluginLoader,
  resolvePluginList,
  sectionSpecs,
} from "../../../kernel/load/index.ts";

/** A logger that keeps its lines. */
export function memoryLog(): Logger & {
  readonly lines: { level: string; facts: object; message: string | undefined }[];
} {
  const lines: { level: string; facts: object; message: string | undefined }[] = [];
  const at = (level: string) => (facts: object, message?: string) => {
    lines.push({ level, facts, message });
  };
  return {
    lines,
    trace: at("trace"),
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
  };
}

/** A temporary folder with the given files, gone after the test. Its path has no symbolic links in it. */
export async function folder(t: TestContext, files: Readonly<Record<string, string>> = {}): Promise<string> {
  const root = await realpath(await mkdtemp(join(tmpdir(), "tokenman-")));
  t.after(() => rm(root, { recursive: true, force: true }));
  await write(root, files);
  return root;
}

/** Writes files below `root`; whatever the umask is, nobody else can write them. */
export async function write(root: string, files: Readonly<Record<string, string>>): Promise<void> {
  for (const [path, content] of Object.entries(files)) {
    const file = join(root, path);
    await mkdir(dirname(file), { recursive: true, mode: 0o755 });
    await writeFile(file, content);
    await chmod(file, 0o644);
  }
}

/** Source of a plugin that does nothing. */
export function source(name: string, more = ""): string {
  return `import { definePlugin } from "@tokenman/plugin-sdk";
export default definePlugin({ name: ${JSON.stringify(name)}, version: "1.0.0", apiVersion: 1, setup() {}, ${more} });
`;
}

export function plugin(name: string, more: Partial<PluginDefinition> = {}): Plugin {
  return definePlugin({ name, version: "1.0.0", apiVersion: 1, setup() {}, ...more } as PluginDefinition);
}

export function registryOf(plugins: readonly Plugin[], alwaysOn: readonly string[] = []): FirstPartyRegistry {
  const names = plugins.map(({ name }) => name);
  return {
    names: () => names,
    load: async (name) => {
      const found = plugins.find((each) => each.name === name);
      assert.ok(found, name);
      return found;
    },
    defaultOrder: names.filter((name) => !alwaysOn.includes(name)),
    alwaysOn,
  };
}

/** Loads what the options ask for, as the kernel does. */
export async function loadFrom(
  cacheFolder: string,
  options: Partial<PluginListOptions>,
  loader?: PluginLoader,
): Promise<LoadResult> {
  const registry = options.registry ?? registryOf([]);
  const list = await resolvePluginList({
    registry,
    order: undefined,
    dir: undefined,
    flag: undefined,
    configDir: undefined,
    ...options,
  });
  return (loader ?? new PluginLoader({ registry, cacheFolder, version: "1.0.0", log: memoryLog() })).load(
    list,
  );
}

/** Already loaded plugins, in list order. */
export function loaded(...plugins: readonly Plugin[]): LoadResult {
  const entries = plugins.map(
    (each): LoadedPlugin => ({
      plugin: each,
      source: "built in",
      listed: true,
      from: "[plugins] order",
      inputs: [],
    }),
  );
  return { loaded: entries, leftOut: [], problems: [] };
}

/** The config that a file with this text gives; fails on any problem. */
export async function config(text: string, load: LoadResult): Promise<Config> {
  const table = parseConfig(text, "/config/tokenman.toml");
  const raw = {
    file: "/config/tokenman.toml",
    text,
    table,
    env: new Map<string, string>(),
    home: "/home/user",
  };
  const { config, problems } = await validateConfig(raw, sectionSpecs(load));
  assert.deepEqual(
    problems.map((problem) => problem.describe()),
    [],
  );
  return config;
}

export const host: HostBase = {
  version: "1.0.0",
  dataDir: "/data",
  bootId: "boot",
  keyFor: () => assert.fail("not asked"),
  storedBodyBytes: 0,
  configFile: undefined,
  watched: [],
  reload: async () => ({ ok: true, generation: 1, error: undefined }),
  status: () => assert.fail("not asked"),
  ask: () => assert.fail("not asked"),
  exchange: () => assert.fail("not asked"),
  config: () => ({}),
};

export interface BuildOptions {
  readonly id?: number;
  readonly toml?: string;
  readonly keep?: KeepStore;
  readonly log?: Logger;
}

export async function build(load: LoadResult, options: BuildOptions = {}): Promise<Generation> {
  return buildGeneration({
    id: options.id ?? 1,
    settings: await config(options.toml ?? "", load),
    load,
    keep: options.keep ?? new KeepStore(),
    host,
    log: options.log ?? memoryLog(),
  });
}

/** The problems that a promise is rejected with, as "CODE message". */
export async function problemsOf(promise: Promise<unknown>): Promise<string[]> {
  const error = await promise.then(
    () => assert.fail("expected a rejection"),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof TokenmanErrors, String(error));
  return error.errors.map(({ code, message }) => `${code} ${message}`);
}

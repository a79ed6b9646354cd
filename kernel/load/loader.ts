import type { Logger, Place, Plugin } from "@tokenman/plugin-sdk";
import { TokenmanError, TokenmanErrors } from "@tokenman/plugin-sdk";
import { CompileCache } from "./cache.ts";
import type { PluginEntry, PluginLeftOut, PluginList } from "./entries.ts";
import { FOLDER, notFound } from "./entries.ts";
import { type Evaluated, evaluate } from "./evaluate.ts";
import { plainName } from "./path.ts";
import type { FirstPartyRegistry } from "./registry.ts";
import { pluginOf } from "./shape.ts";
import { throwPlace } from "./stack.ts";

/** A plugin that is ready for `setup`. */
export interface LoadedPlugin {
  readonly plugin: Plugin;
  /** "built in", or its entry file. */
  readonly source: string;
  /** Whether an order list names it; otherwise its stage places it. */
  readonly listed: boolean;
  /** Who asked for it, in words. */
  readonly from: string;
  /** Where the config names it, or its own file; undefined for a built-in one that the config does not name. */
  readonly place?: Place | undefined;
  /** Absolute paths of all files it was made from; empty for a built-in one. */
  readonly inputs: readonly string[];
  /** Hash over these files and what compiled them; undefined for a built-in one. */
  readonly digest?: string;
}

export interface LoadResult {
  /** Listed ones first, in the list's order. */
  readonly loaded: readonly LoadedPlugin[];
  readonly leftOut: readonly PluginLeftOut[];
  readonly problems: readonly TokenmanError[];
}

export interface PluginLoaderOptions {
  readonly registry: FirstPartyRegistry;
  /** `DATA_DIR/cache/plugins`. */
  readonly cacheFolder: string;
  /** TokenMan's version. */
  readonly version: string;
  readonly log: Logger;
}

/** What was evaluated, by entry file. */
type Modules = Map<string, { readonly key: string; readonly plugin: Plugin }>;

/**
 * Turns plugin entries into plugins. One loader serves all generations: a file whose inputs did not change is not
 * evaluated again, as a built-in plugin is not either; of each file only the newest version is remembered.
 */
export class PluginLoader {
  readonly #registry: FirstPartyRegistry;
  readonly #cache: CompileCache;
  #modules: Modules = new Map();

  constructor(options: PluginLoaderOptions) {
    this.#registry = options.registry;
    this.#cache = new CompileCache(options.cacheFolder, options.version, options.log);
  }

  /** Loads all entries; a problem with one does not hide those of the others. */
  async load(list: PluginList): Promise<LoadResult> {
    const problems = [...list.problems];
    const leftOut = await Promise.all(list.leftOut.map((each) => this.#definitionOf(each, problems)));
    const loaded: LoadedPlugin[] = [];
    const modules: Modules = new Map();
    // One at a time: esbuild is stopped after each, and the order of messages stays that of the entries.
    for (const entry of list.entries) {
      if (entry.source.kind === "declared") continue;
      try {
        loaded.push(await this.#one(entry, modules));
      } catch (error) {
        if (error instanceof TokenmanError) problems.push(error);
        else if (error instanceof TokenmanErrors) problems.push(...error.errors);
        else throw error;
      }
    }
    this.#modules = modules;
    const ordered = this.#settleDeclared(list, loaded, leftOut, problems);
    problems.push(...duplicates(ordered));
    return { loaded: ordered, leftOut, problems };
  }

  async #one(entry: PluginEntry, modules: Modules): Promise<LoadedPlugin> {
    const { source, listed, from, place } = entry;
    if (source.kind !== "file")
      return {
        plugin: await this.#builtIn(source.name),
        source: "built in",
        listed,
        from,
        place,
        inputs: [],
      };
    const { file } = source;
    const { key, code, inputs } = await this.#cache.get(file);
    const known = this.#modules.get(file);
    const plugin =
      known?.key === key
        ? known.plugin
        : await evaluatePlugin(code, file, inputs, from === FOLDER ? HELPER : "");
    modules.set(file, { key, plugin });
    return { plugin, source: file, listed, from, place: place ?? { file }, inputs, digest: key };
  }

  async #builtIn(name: string): Promise<Plugin> {
    let plugin: Plugin;
    try {
      plugin = await this.#registry.load(name);
    } catch (cause) {
      throw new TokenmanError("TM_PLUGIN_LOAD", `built-in plugin "${name}": ${reasonOf(cause)}`, {
        cause,
        plugin: name,
      });
    }
    return pluginOf(plugin, "built in");
  }

  async #definitionOf(leftOut: PluginLeftOut, problems: TokenmanError[]): Promise<PluginLeftOut> {
    if (leftOut.source !== "built in") return leftOut;
    try {
      return { ...leftOut, plugin: await this.#builtIn(leftOut.name) };
    } catch (error) {
      if (!(error instanceof TokenmanError)) throw error;
      problems.push(error);
      return leftOut;
    }
  }

  /** A list may call a plugin of the folder by its declared name, which only loading it tells. */
  #settleDeclared(
    list: PluginList,
    loaded: readonly LoadedPlugin[],
    leftOut: PluginLeftOut[],
    problems: TokenmanError[],
  ): LoadedPlugin[] {
    const bySource = new Map(
      loaded.map((each) => [each.source === "built in" ? each.plugin.name : each.source, each]),
    );
    const known = () => [
      ...this.#registry.names(),
      ...loaded.map(({ plugin }) => plugin.name),
      ...list.leftOut.map(({ name }) => name),
    ];
    const ordered: LoadedPlugin[] = [];
    const taken = new Set<LoadedPlugin>();
    for (const entry of list.entries) {
      const { source } = entry;
      const found =
        source.kind === "declared"
          ? loaded.find((each) => !each.listed && each.plugin.name === source.name)
          : bySource.get(source.kind === "file" ? source.file : source.name);
      if (found === undefined) {
        // Had it only failed to load, its own problem says so.
        if (source.kind === "declared") problems.push(notFound(entry, source.name, known()));
        continue;
      }
      if (taken.has(found)) continue;
      taken.add(found);
      ordered.push(
        source.kind === "declared"
          ? { ...found, listed: entry.listed, from: entry.from, place: entry.place ?? found.place }
          : found,
      );
    }
    for (const name of list.excluded) {
      const index = ordered.findIndex((each) => each.plugin.name === name || each.source === name);
      const gone = index === -1 ? undefined : ordered.splice(index, 1)[0];
      if (gone !== undefined) {
        leftOut.push({
          name: gone.plugin.name,
          source: gone.source,
          reason: `left out by --plugins -${name}`,
        });
      } else if (![...list.leftOut].some((each) => each.name === name)) {
        const entry: PluginEntry = {
          source: { kind: "declared", name },
          listed: false,
          from: "--plugins",
          place: undefined,
        };
        problems.push(notFound(entry, name, known()));
      }
    }
    return ordered;
  }
}

function duplicates(loaded: readonly LoadedPlugin[]): TokenmanError[] {
  const problems: TokenmanError[] = [];
  const byName = new Map<string, LoadedPlugin>();
  for (const each of loaded) {
    const { name } = each.plugin;
    const earlier = byName.get(name);
    if (earlier === undefined) byName.set(name, each);
    else {
      const message = `two plugins are named "${name}": ${where(earlier)} and ${where(each)}; leave one out or rename it`;
      problems.push(new TokenmanError("TM_PLUGIN_DUPLICATE", message, { plugin: name }));
    }
  }
  return problems;
}

function where({ source, from }: LoadedPlugin): string {
  return source === "built in" ? `the built-in one (${from})` : `${source} (${from})`;
}

/** Every file of the folder counts as a plugin, and what somebody meant as a part of one is told apart by nothing. */
const HELPER =
  "; a file that a plugin imports belongs in that plugin's own folder: plugins.dir/NAME/index.ts";

async function evaluatePlugin(
  code: string,
  file: string,
  inputs: readonly string[],
  hint: string,
): Promise<Plugin> {
  let evaluated: Evaluated;
  try {
    evaluated = evaluate(code, file);
  } catch (cause) {
    const message = `${plainName(file)} failed while it was loaded: ${reasonOf(cause)}`;
    throw new TokenmanError("TM_PLUGIN_LOAD", message, {
      cause,
      place: await throwPlace(cause, file, inputs),
    });
  }
  const plugin = pluginOf(evaluated.exports, file, hint);
  MODULES.set(plugin, evaluated.module);
  return plugin;
}

/** The definition lives as long as anything of the plugin may run, and so does what maps its stack traces. */
const MODULES = new WeakMap<Plugin, object>();

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { nearest, type Place, type Plugin, TokenmanError } from "@tokenman/plugin-sdk";
import {
  entryFile,
  expandPath,
  hasSourceExtension,
  isPath,
  plainName,
  type Root,
  realRoots,
} from "./path.ts";
import type { FirstPartyRegistry } from "./registry.ts";

/** A plugin to load, in the order of the request's way where `listed`, else to be placed by its stage. */
export interface PluginEntry {
  readonly source:
    | { readonly kind: "built-in"; readonly name: string }
    /** `file` is a real path. */
    | { readonly kind: "file"; readonly file: string }
    /** Names a plugin by what its definition calls itself; it is one of those found in `plugins.dir`. */
    | { readonly kind: "declared"; readonly name: string };
  readonly listed: boolean;
  /** Who asked for it, in words. */
  readonly from: string;
  readonly place: Place | undefined;
}

/** A plugin that is there and is not loaded. */
export interface PluginLeftOut {
  readonly name: string;
  readonly source: string;
  readonly reason: string;
  /** The definition, known of built-in ones once they were loaded: its section is still checked. */
  readonly plugin?: Plugin;
}

export interface PluginList {
  readonly entries: readonly PluginEntry[];
  readonly leftOut: readonly PluginLeftOut[];
  /** Names that must not be loaded although they are found (`--plugins -NAME`). */
  readonly excluded: ReadonlySet<string>;
  readonly problems: readonly TokenmanError[];
}

export interface PluginListOptions {
  readonly registry: FirstPartyRegistry;
  /** `[plugins] order`; undefined means the default list. */
  readonly order: readonly string[] | undefined;
  /** Where an item of `order` stands in the config file. */
  readonly placeOf?: (index: number) => Place | undefined;
  /** `[plugins] dir`, absolute; undefined scans nothing. A folder that does not exist is empty. */
  readonly dir: string | undefined;
  /** Value of `--plugins`. */
  readonly flag: string | undefined;
  /** Folder of the config file, to which paths in `order` are relative. */
  readonly configDir: string | undefined;
  /** Paths in `--plugins` are relative to it. */
  readonly cwd?: string;
}

/** Who asked for a plugin that was found in the folder. */
export const FOLDER = "plugins.dir";

interface Item {
  readonly text: string;
  readonly listed: boolean;
  readonly from: string;
  readonly base: string;
  readonly roots: readonly Root[];
  readonly place: Place | undefined;
}

/** What is to be loaded, from the default order, the config, `--plugins` and the plugins folder. Reads folders only. */
export async function resolvePluginList(options: PluginListOptions): Promise<PluginList> {
  const { registry, dir } = options;
  const cwd = options.cwd ?? process.cwd();
  const problems: TokenmanError[] = [];
  const configRoots: Root[] = [
    ...(options.configDir === undefined
      ? []
      : [{ path: options.configDir, says: "the config file's folder" }]),
    ...(dir === undefined ? [] : [{ path: dir, says: "plugins.dir" }]),
  ];
  const roots = await realRoots(configRoots);
  const flagRoots = await realRoots([...configRoots, { path: cwd, says: "the current folder" }]);

  const listName = options.order === undefined ? "the default order" : "[plugins] order";
  const flag = parseFlag(options.flag, problems);
  const item = (text: string, index: number): Item => ({
    text,
    listed: true,
    from: listName,
    base: options.configDir ?? cwd,
    roots,
    place: options.order === undefined ? undefined : options.placeOf?.(index),
  });
  const flagItem = (text: string): Item => ({
    text,
    listed: flag.kind === "list",
    from: "--plugins",
    base: cwd,
    roots: flagRoots,
    place: { file: "--plugins" },
  });

  const found = await scan(dir, roots, problems);
  const wanted =
    flag.kind === "list"
      ? flag.items.map(flagItem)
      : [...(options.order ?? registry.defaultOrder).map(item), ...flag.add.map(flagItem)];
  const removed = new Set(flag.kind === "edit" ? flag.remove.map((text) => identity(text, cwd)) : []);
  const entries: PluginEntry[] = [];
  const leftOut: PluginLeftOut[] = [];
  const seen = new Map<string, Item>();
  const removedHere = new Set<string>();
  const builtIn = new Set(registry.names());

  for (const wish of wanted) {
    const asked = identity(wish.text, wish.base);
    if (removed.has(asked)) {
      removedHere.add(asked);
      continue;
    }
    const source = await locate(wish, builtIn, found.files, problems);
    if (source === undefined) continue;
    const key = source.kind === "file" ? source.file : source.name;
    const earlier = seen.get(key);
    if (earlier !== undefined) {
      if (wish.listed && earlier.listed) {
        const where = earlier.from === wish.from ? wish.from : `${earlier.from} and in ${wish.from}`;
        const message = `${key} is named twice, in ${where}; the order takes it once`;
        problems.push(new TokenmanError("TM_PLUGIN_DUPLICATE", message, wish.place && { place: wish.place }));
      }
      continue;
    }
    seen.set(key, wish);
    entries.push({ source, listed: wish.listed, from: wish.from, place: wish.place });
  }

  for (const name of registry.alwaysOn) {
    if (removed.has(name)) removedHere.add(name);
    else if (!seen.has(name)) {
      entries.push({
        source: { kind: "built-in", name },
        listed: false,
        from: "always on",
        place: undefined,
      });
      seen.set(name, { ...flagItem(name), place: undefined });
    }
  }
  for (const { name, file } of found.files) {
    if (seen.has(file)) continue;
    if (removed.has(name)) {
      removedHere.add(name);
      leftOut.push({ name, source: file, reason: `left out by --plugins -${name}` });
    } else if (flag.kind === "list") leftOut.push({ name, source: file, reason: "not named in --plugins" });
    else entries.push({ source: { kind: "file", file }, listed: false, from: FOLDER, place: undefined });
  }
  for (const name of found.empty) {
    leftOut.push({
      name,
      source: join(dir ?? "", name),
      reason: "the folder has no index.ts and no package.json main",
    });
  }
  for (const name of registry.names()) {
    if (seen.has(name)) continue;
    const reason = removed.has(name)
      ? `left out by --plugins -${name}`
      : `not named in ${flag.kind === "list" ? "--plugins" : listName}`;
    if (removed.has(name)) removedHere.add(name);
    leftOut.push({ name, source: "built in", reason });
  }
  return { entries, leftOut, excluded: unmatched(removed, removedHere), problems };
}

/** Removals that met nothing yet: they may still be the declared name of a plugin of the folder. */
function unmatched(removed: ReadonlySet<string>, matched: ReadonlySet<string>): ReadonlySet<string> {
  return new Set([...removed].filter((name) => !matched.has(name)));
}

type Flag =
  | { readonly kind: "list"; readonly items: readonly string[] }
  | { readonly kind: "edit"; readonly add: readonly string[]; readonly remove: readonly string[] };

function parseFlag(flag: string | undefined, problems: TokenmanError[]): Flag {
  const items = (flag ?? "")
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "");
  if (flag === undefined) return { kind: "edit", add: [], remove: [] };
  const edits = items.filter((item) => item.startsWith("+") || item.startsWith("-"));
  if (edits.length > 0 && edits.length < items.length) {
    const plain = items.find((item) => !edits.includes(item));
    const message = `--plugins ${flag}: either names only ("a,b") or edits only ("+a,-b"), but "${plain}" has no sign`;
    problems.push(new TokenmanError("TM_USAGE", message, { place: { file: "--plugins" } }));
  }
  if (edits.length === 0) return { kind: "list", items };
  return {
    kind: "edit",
    add: edits.filter((item) => item.startsWith("+")).map((item) => item.slice(1)),
    remove: edits.filter((item) => item.startsWith("-")).map((item) => item.slice(1)),
  };
}

/** Two spellings of one path are the same item. */
function identity(text: string, base: string): string {
  return isPath(text) ? expandPath(text, base) : text;
}

async function locate(
  item: Item,
  builtIn: ReadonlySet<string>,
  found: readonly Found[],
  problems: TokenmanError[],
): Promise<PluginEntry["source"] | undefined> {
  if (!isPath(item.text)) {
    if (builtIn.has(item.text)) return { kind: "built-in", name: item.text };
    const file = found.find(({ name }) => name === item.text)?.file;
    return file === undefined ? { kind: "declared", name: item.text } : { kind: "file", file };
  }
  const path = expandPath(item.text, item.base);
  try {
    const file = await entryFile(path, item.roots, item.place);
    if (file !== undefined) return { kind: "file", file };
    const message = `${path} is a folder without an index.ts and without a package.json that names a main`;
    problems.push(new TokenmanError("TM_PLUGIN_NOT_FOUND", message, item.place && { place: item.place }));
  } catch (error) {
    if (!(error instanceof TokenmanError)) throw error;
    problems.push(error);
  }
  return undefined;
}

interface Found {
  /** File or folder name, without extension. */
  readonly name: string;
  readonly file: string;
}

/** Every source file and every folder with an entry in `plugins.dir`, by name. */
async function scan(
  dir: string | undefined,
  roots: readonly Root[],
  problems: TokenmanError[],
): Promise<{ files: Found[]; empty: string[] }> {
  const files: Found[] = [];
  const empty: string[] = [];
  if (dir === undefined) return { files, empty };
  const listing = await readdir(dir, { withFileTypes: true }).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== "ENOENT") {
      const message = `plugins.dir ${dir} cannot be read: ${cause.message}`;
      problems.push(new TokenmanError("TM_PLUGIN_NOT_FOUND", message, { cause }));
    }
    return [];
  });
  for (const child of listing.sort((left, right) => (left.name < right.name ? -1 : 1))) {
    if (child.name.startsWith(".") || child.name === "node_modules") continue;
    if (child.isFile() && !hasSourceExtension(child.name)) continue;
    const path = join(dir, child.name);
    if (child.isSymbolicLink() && !hasSourceExtension(child.name) && child.name.includes(".")) continue;
    try {
      const file = await entryFile(path, roots, undefined);
      if (file === undefined) empty.push(child.name);
      else files.push({ name: plainName(child.name), file });
    } catch (error) {
      if (!(error instanceof TokenmanError)) throw error;
      problems.push(error);
    }
  }
  return { files, empty };
}

/** The error for a name that is neither built in nor that of a plugin in the folder. */
export function notFound(entry: PluginEntry, name: string, known: Iterable<string>): TokenmanError {
  const near = nearest(name, known);
  const hint =
    near === undefined ? `known: ${[...new Set(known)].sort().join(", ")}` : `did you mean "${near}"?`;
  const message = `no plugin named "${name}" (named in ${entry.from}); ${hint}`;
  return new TokenmanError("TM_PLUGIN_NOT_FOUND", message, entry.place && { place: entry.place });
}

import { readFile, realpath, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { type Place, TokenmanError } from "@tokenman/plugin-sdk";

export const SOURCE_EXTENSIONS = [".ts", ".mts", ".cts", ".js", ".mjs", ".cjs"] as const;

/** Whether an item of a plugin list is a path rather than a name. */
export function isPath(item: string): boolean {
  return /[/\\]/.test(item) || item.startsWith(".") || item.startsWith("~") || hasSourceExtension(item);
}

/** Whether a file's name is that of a plugin's source; type declarations and tests beside it are not. */
export function hasSourceExtension(name: string): boolean {
  return (
    SOURCE_EXTENSIONS.some((extension) => name.endsWith(extension)) && !/\.(d|test)\.[cm]?[jt]s$/.test(name)
  );
}

/** A file's or folder's name without a source extension: what an order list may call it by. */
export function plainName(path: string): string {
  return basename(path).replace(/\.[cm]?[jt]s$/, "");
}

/** Absolute form of a path as written by the user, relative to `base`. */
export function expandPath(path: string, base: string): string {
  const expanded = path === "~" || path.startsWith("~/") ? join(homedir(), path.slice(1)) : path;
  return isAbsolute(expanded) ? expanded : resolve(base, expanded);
}

/** Whether `path` is `root` or lies below it. Both must be real paths. */
export function isInside(path: string, root: string): boolean {
  const way = relative(root, path);
  return way === "" || (way !== ".." && !way.startsWith(`..${sep}`) && !isAbsolute(way));
}

/** A folder a plugin may be loaded from, and what to call it in an error. */
export interface Root {
  readonly path: string;
  readonly says: string;
}

/** The roots by their real paths. Those that do not exist hold no plugins and are left out. */
export async function realRoots(roots: readonly Root[]): Promise<Root[]> {
  const found = await Promise.all(
    roots.map(async ({ path, says }) => {
      const real = await realpath(path).catch(() => undefined);
      return real === undefined ? [] : [{ path: real, says }];
    }),
  );
  return found.flat();
}

/**
 * The source file that a plugin path stands for, by its real path: the file itself, or a folder's `package.json`
 * `main`, or its `index` file. Undefined for a folder that has neither. Symbolic links are followed before the
 * roots are checked, so that a link inside a root leads nowhere else.
 *
 * Throws TM_PLUGIN_NOT_FOUND, TM_PLUGIN_OUTSIDE, TM_PLUGIN_WRITABLE.
 */
export async function entryFile(
  path: string,
  roots: readonly Root[],
  place: Place | undefined,
): Promise<string | undefined> {
  const options = place === undefined ? {} : { place };
  const real = await realpath(path).catch((cause: NodeJS.ErrnoException) => {
    const why = cause.code === "ENOENT" ? "there is no such file or folder" : cause.message;
    throw new TokenmanError("TM_PLUGIN_NOT_FOUND", `no plugin at ${path}: ${why}`, { ...options, cause });
  });
  requireInside(real, path, roots, options);
  if ((await stat(real)).isFile()) {
    if (!hasSourceExtension(real)) {
      const message = `${path} is no plugin: expected a ${SOURCE_EXTENSIONS.join(", ")} file or a folder`;
      throw new TokenmanError("TM_PLUGIN_NOT_FOUND", message, options);
    }
    await requireSafe(real);
    return real;
  }
  const inner = await folderEntry(real);
  if (inner === undefined) return undefined;
  // `main` may itself be a link, or lead out with "..".
  const innerReal = await realpath(inner);
  requireInside(innerReal, inner, roots, options);
  await requireSafe(innerReal);
  return innerReal;
}

async function folderEntry(folder: string): Promise<string | undefined> {
  const candidates = SOURCE_EXTENSIONS.map((extension) => join(folder, `index${extension}`));
  const manifest = await readFile(join(folder, "package.json"), "utf8").catch(() => undefined);
  if (manifest !== undefined) {
    const main = mainOf(manifest);
    if (main !== undefined) candidates.unshift(join(folder, main));
  }
  for (const candidate of candidates) {
    if (
      await stat(candidate).then(
        (found) => found.isFile(),
        () => false,
      )
    )
      return candidate;
  }
  return undefined;
}

/** A half-written package.json has no main: the `index` file is then looked for, as Node does. */
function mainOf(manifest: string): string | undefined {
  try {
    const main: unknown = (JSON.parse(manifest) as { main?: unknown } | null)?.main;
    return typeof main === "string" && main !== "" ? main : undefined;
  } catch {
    return undefined;
  }
}

function requireInside(
  real: string,
  asWritten: string,
  roots: readonly Root[],
  options: { place?: Place },
): void {
  if (roots.some((root) => isInside(real, root.path))) return;
  const leads = real === asWritten ? asWritten : `${asWritten} (really ${real})`;
  const allowed =
    roots.map((root) => `${root.path} (${root.says})`).join(", ") || "none: no config file, no plugins.dir";
  throw new TokenmanError(
    "TM_PLUGIN_OUTSIDE",
    `${leads} is outside the folders that may hold plugins: ${allowed}`,
    options,
  );
}

/**
 * Refuses a source that any user of the machine could replace: the code runs with TokenMan's keys.
 * Throws TM_PLUGIN_WRITABLE. (Windows has no such mode bits; nothing is checked there.)
 */
export async function requireSafe(file: string): Promise<void> {
  if (process.platform === "win32") return;
  for (const path of [file, dirname(file)]) {
    const { mode } = await stat(path);
    const sticky = path !== file && (mode & 0o1000) !== 0;
    if ((mode & 0o002) !== 0 && !sticky) {
      const message = `${path} is writable by every user (mode ${(mode & 0o7777).toString(8)}); run: chmod o-w '${path}'`;
      throw new TokenmanError("TM_PLUGIN_WRITABLE", message, { place: { file } });
    }
  }
}

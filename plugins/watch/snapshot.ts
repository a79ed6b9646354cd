import { createHash } from "node:crypto";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";

/** Content hashes by absolute path. A file that is not there has none. */
export type Snapshot = ReadonlyMap<string, string>;

/** What can be a part of a plugin. */
const SOURCE = /\.([cm]?[jt]s|json)$/;
const MAX_DEPTH = 8;

/** Whether a change of this file or folder, found in a plugins folder, can matter. */
export function isOfInterest(name: string): boolean {
  return !name.startsWith(".") && name !== "node_modules";
}

/** The content of `files`, and of all sources under those of them that are folders. */
export async function takeSnapshot(files: Iterable<string>): Promise<Snapshot> {
  const snapshot = new Map<string, string>();
  for (const file of files) await add(snapshot, file, MAX_DEPTH, true);
  return snapshot;
}

/** The files that were added, changed or removed between two snapshots. */
export function changesBetween(before: Snapshot, after: Snapshot): string[] {
  const all = new Set([...before.keys(), ...after.keys()]);
  return [...all].filter((file) => before.get(file) !== after.get(file)).sort();
}

async function add(
  snapshot: Map<string, string>,
  path: string,
  depth: number,
  named: boolean,
): Promise<void> {
  try {
    if ((await stat(path)).isDirectory()) {
      if (depth === 0) return;
      for (const name of await readdir(path)) {
        if (isOfInterest(name)) await add(snapshot, join(path, name), depth - 1, false);
      }
    } else if (named || SOURCE.test(path)) {
      snapshot.set(
        path,
        createHash("sha256")
          .update(await readFile(path))
          .digest("base64"),
      );
    }
  } catch {
    // Gone, or not readable: as good as not there. Loading it will say why.
  }
}

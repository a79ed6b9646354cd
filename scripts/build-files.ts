import { createHash } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, extname, join } from "node:path";
import type { Plugin } from "esbuild";
import { places } from "./build-places.ts";

/** How a plugin names a file of a package that it reads, or loads, itself. */
const PACKAGE_FILE = /require\.resolve\("([^"]+)"\)/g;

/**
 * Lets `require.resolve("PACKAGE/FILE")` work in the bundle: the file is copied to `folder`, with a hash of its content in
 * its name, and the call becomes the copy's path. For what cannot be bundled (WebAssembly, data that is read as text) and
 * for what must stay unloaded until it is needed. The code that names it must end up in `folder` too.
 */
export function files(folder: string): Plugin {
  return places({
    name: "files",
    pattern: PACKAGE_FILE,
    folder,
    does: "names a package's file",
    async replacement(path, name) {
      const copy = await copyOf(createRequire(path).resolve(name), name, folder);
      return `\`\${import.meta.dirname}/${copy}\``;
    },
  });
}

/** Copies a file into the folder, once for each content. Returns the copy's name. */
async function copyOf(file: string, specifier: string, folder: string): Promise<string> {
  const content = await readFile(file);
  const hash = createHash("sha256").update(content).digest("hex").slice(0, 8).toUpperCase();
  const copy = `${basename(specifier, extname(file))}-${hash}${extname(file)}`;
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, copy), content);
  return copy;
}

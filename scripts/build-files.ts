import { createHash } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { basename, dirname, extname, join, relative } from "node:path";
import type { Plugin } from "esbuild";

/** How a plugin names a file of a package that it reads, or loads, itself. */
const PACKAGE_FILE = /require\.resolve\("([^"]+)"\)/g;

/**
 * Lets `require.resolve("PACKAGE/FILE")` work in the bundle: the file is copied to `folder`, with a hash of its content in
 * its name, and the call becomes the copy's path. For what cannot be bundled (WebAssembly, data that is read as text) and
 * for what must stay unloaded until it is needed. The code that names it must end up in `folder` too.
 */
export function files(folder: string): Plugin {
  return {
    name: "files",
    setup({ onLoad, onEnd, initialOptions }) {
      const naming = new Set<string>();
      const root = initialOptions.absWorkingDir!;
      onLoad({ filter: /[\\/](plugins|kernel|cli)[\\/].*\.ts$/ }, async ({ path }) => {
        const source = await readFile(path, "utf8");
        const found = [...source.matchAll(PACKAGE_FILE)];
        if (found.length === 0) return undefined;
        naming.add(relative(root, path));
        let contents = source;
        for (const [text, name] of found) {
          const copy = await copyOf(createRequire(path).resolve(name!), name!, folder);
          contents = contents.replace(text, `\`\${import.meta.dirname}/${copy}\``);
        }
        return { contents, loader: "ts" };
      });
      onEnd(({ metafile }) => {
        for (const [output, { inputs }] of Object.entries(metafile?.outputs ?? {})) {
          const stray = Object.keys(inputs).find((input) => naming.has(input));
          if (stray !== undefined && !output.endsWith(".map") && join(root, dirname(output)) !== folder)
            throw new Error(
              `${stray} names a package's file and must be behind an import(), but is part of ${output}`,
            );
        }
      });
    },
  };
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

import { readFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import type { Plugin } from "esbuild";

export interface Places {
  readonly name: string;
  /** What a source says to name a file by its own place; the first group names it. */
  readonly pattern: RegExp;
  /** The folder of the bundle in which the code that names files must end up. */
  readonly folder: string;
  /** What such a source does, for the error where it ended up elsewhere. */
  readonly does: string;
  /** What to say in the bundle. */
  replacement(path: string, found: string): Promise<string>;
}

/** Rewrites how sources name files by their own place, which the bundle is not. */
export function places({ name, pattern, folder, does, replacement }: Places): Plugin {
  return {
    name,
    setup({ onLoad, onEnd, initialOptions }) {
      const naming = new Set<string>();
      const root = initialOptions.absWorkingDir!;
      onLoad({ filter: /[\\/](plugins|kernel|cli)[\\/].*\.ts$/ }, async ({ path }) => {
        const source = await readFile(path, "utf8");
        const found = [...source.matchAll(pattern)];
        if (found.length === 0) return undefined;
        naming.add(relative(root, path));
        let contents = source;
        for (const [text, named] of found) contents = contents.replace(text, await replacement(path, named!));
        return { contents, loader: "ts" };
      });
      onEnd(({ metafile }) => {
        for (const [output, { inputs }] of Object.entries(metafile?.outputs ?? {})) {
          const stray = Object.keys(inputs).find((input) => naming.has(input));
          if (stray !== undefined && !output.endsWith(".map") && join(root, dirname(output)) !== folder)
            throw new Error(`${stray} ${does} and must be behind an import(), but is part of ${output}`);
        }
      });
    },
  };
}

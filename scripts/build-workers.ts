import { readFile } from "node:fs/promises";
import { basename, dirname, join, relative } from "node:path";
import { type BuildOptions, build, type Plugin } from "esbuild";

/** How a plugin names the file of a worker thread: resolved from its own place, in the source and in the bundle. */
const WORKER_URL = /new URL\("\.\/([a-z-]+-worker)\.ts", import\.meta\.url\)/g;

/**
 * Lets `new Worker(new URL("./NAME-worker.ts", import.meta.url))` work in the bundle: each such file becomes a bundle
 * of its own in `folder`, with a hash of its content in its name, and the URL is changed to lead there. The code that
 * names it must end up in `folder` too, which `check` makes sure of.
 */
export function workers(folder: string, options: BuildOptions): Plugin {
  const built = new Map<string, Promise<string>>();
  const bundle = (file: string): Promise<string> => {
    const known = built.get(file);
    if (known !== undefined) return known;
    const name = `${basename(dirname(file))}-${basename(file, ".ts")}`;
    const building = build({
      ...options,
      entryPoints: { [name]: file },
      entryNames: "[name]-[hash]",
      outdir: folder,
      splitting: false,
      metafile: true,
    }).then(({ metafile }) =>
      basename(Object.keys(metafile!.outputs).find((path) => path.endsWith(".mjs"))!),
    );
    built.set(file, building);
    return building;
  };
  return {
    name: "workers",
    setup({ onLoad, onEnd, initialOptions }) {
      const naming = new Set<string>();
      const root = initialOptions.absWorkingDir!;
      onLoad({ filter: /[\\/](plugins|kernel|cli)[\\/].*\.ts$/ }, async ({ path }) => {
        const source = await readFile(path, "utf8");
        const found = [...source.matchAll(WORKER_URL)];
        if (found.length === 0) return undefined;
        naming.add(relative(root, path));
        let contents = source;
        for (const [text, name] of found) {
          const file = await bundle(join(dirname(path), `${name}.ts`));
          contents = contents.replace(text, `new URL("./${file}", import.meta.url)`);
        }
        return { contents, loader: "ts" };
      });
      onEnd(({ metafile }) => {
        for (const [output, { inputs }] of Object.entries(metafile?.outputs ?? {})) {
          const stray = Object.keys(inputs).find((input) => naming.has(input));
          if (stray !== undefined && !output.endsWith(".map") && join(root, dirname(output)) !== folder)
            throw new Error(
              `${stray} starts a worker and must be behind an import(), but is part of ${output}`,
            );
        }
      });
    },
  };
}

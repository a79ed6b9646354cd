import { basename, dirname, join } from "node:path";
import { type BuildOptions, build, type Plugin } from "esbuild";
import { places } from "./build-places.ts";

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
  return places({
    name: "workers",
    pattern: WORKER_URL,
    folder,
    does: "starts a worker",
    async replacement(path, name) {
      const file = await bundle(join(dirname(path), `${name}.ts`));
      return `new URL("./${file}", import.meta.url)`;
    },
  });
}

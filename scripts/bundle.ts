import { join } from "node:path";
import { type BuildOptions, build } from "esbuild";
import { absent } from "./build-absent.ts";
import { files } from "./build-files.ts";
import { BANNER, output } from "./build-output.ts";
import { workers } from "./build-workers.ts";

const PARTS = "parts";

/**
 * Bundles the command line with everything it needs into `folder`: `main.mjs` and its parts. Files of earlier builds stay: a
 * TokenMan that runs from there may still have to load one. The parts' names carry a hash of their content, so the new ones
 * do not collide with them.
 */
export async function bundle(root: string, folder: string): Promise<void> {
  const parts = join(folder, PARTS);
  const options: BuildOptions = {
    absWorkingDir: root,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    format: "esm",
    platform: "node",
    target: "node24",
    // A program of its own, found in node_modules when a third-party plugin must be compiled.
    external: ["esbuild"],
    sourcemap: "linked",
    sourcesContent: false,
    logLevel: "warning",
    metafile: true,
    plugins: [output(), files(parts)],
    // CommonJS packages in the bundle call `require` for Node's own modules.
    banner: { js: BANNER },
  };
  await build({
    ...options,
    entryPoints: { main: "cli/main.ts" },
    outdir: folder,
    chunkNames: `${PARTS}/[name]-[hash]`,
    // What is behind an `import()` becomes a part of its own, loaded when it is needed.
    splitting: true,
    plugins: [output(), absent(), files(parts), workers(parts, options)],
  });
}

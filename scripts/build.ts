/** `make build`: bundles the CLI with everything it needs into dist/tokenman, and writes the launcher bin/tokenman. */
import { chmod, copyFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type BuildOptions, build } from "esbuild";
import { files } from "./build-files.ts";
import { workers } from "./build-workers.ts";

const ROOT = join(import.meta.dirname, "..");

const PARTS = "parts";
const OUTPUT = join(ROOT, "dist", "tokenman");

const options: BuildOptions = {
  absWorkingDir: ROOT,
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
  plugins: [files(join(OUTPUT, PARTS))],
  // CommonJS packages in the bundle call `require` for Node's own modules.
  banner: {
    js: 'import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url);',
  },
};

// Files of earlier builds stay until `make clean`: a TokenMan that runs from here may still have to load one of its
// parts. Their names carry a hash of their content, so the new ones do not collide with them.
await build({
  ...options,
  entryPoints: { main: "cli/main.ts" },
  outdir: OUTPUT,
  chunkNames: `${PARTS}/[name]-[hash]`,
  // What is behind an `import()` becomes a part of its own, loaded when it is needed.
  splitting: true,
  plugins: [files(join(OUTPUT, PARTS)), workers(join(OUTPUT, PARTS), options)],
});

await mkdir(join(ROOT, "bin"), { recursive: true });
const launcher = join(ROOT, "bin", "tokenman");
await copyFile(join(ROOT, "scripts", "launcher.sh"), launcher);
await chmod(launcher, 0o755);

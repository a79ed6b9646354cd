/**
 * `make sdk`: builds the publishable `@tokenman/plugin-sdk` into plugin-sdk/dist, or into the folder that is given: ES
 * modules, declarations, README, licence, and a package.json that exports the built files. The test kit brings a whole
 * TokenMan along to run plugins in; it is a part of its own, loaded by the first test that starts one.
 */
import { execFileSync } from "node:child_process";
import { copyFileSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { type BuildOptions, build } from "esbuild";
import { files } from "./build-files.ts";
import { workers } from "./build-workers.ts";

const ROOT = join(import.meta.dirname, "..");
const PACKAGE = join(ROOT, "plugin-sdk");
const DIST = resolve(process.argv[2] ?? join(PACKAGE, "dist"));

interface Manifest {
  readonly name: string;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly exports?: unknown;
  readonly [key: string]: unknown;
}

/** The test kit with the bundled TokenMan as its host. */
const TESTKIT = `
  import { installHost } from "./testkit/index.ts";
  export * from "./testkit/index.ts";
  const host = async () => (await import("../cli/test-host.ts")).testHost;
  installHost({
    version: ${JSON.stringify(readManifest(ROOT)["version"])},
    start: async (options) => (await host()).start(options),
    load: async (options) => (await host()).load(options),
  });
`;

rmSync(DIST, { recursive: true, force: true });
mkdirSync(DIST, { recursive: true });

const manifest = readManifest(PACKAGE);
const PARTS = "parts";
const common: BuildOptions = {
  absWorkingDir: ROOT,
  outExtension: { ".js": ".mjs" },
  bundle: true,
  format: "esm",
  platform: "node",
  target: "node24",
  external: [...Object.keys(manifest.dependencies ?? {}), "esbuild"],
  logLevel: "warning",
  plugins: [files(join(DIST, PARTS))],
  banner: {
    js: 'import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url);',
  },
};
await build({
  ...common,
  entryPoints: { index: "plugin-sdk/src/index.ts", testkit: "testkit-with-host" },
  outdir: DIST,
  chunkNames: `${PARTS}/[name]-[hash]`,
  splitting: true,
  metafile: true,
  plugins: [
    {
      name: "testkit-with-host",
      setup(building) {
        building.onResolve({ filter: /^testkit-with-host$/ }, ({ path }) => ({ path, namespace: "entry" }));
        building.onLoad({ filter: /.*/, namespace: "entry" }, () => ({
          contents: TESTKIT,
          resolveDir: PACKAGE,
          loader: "ts",
        }));
      },
    },
    files(join(DIST, PARTS)),
    workers(join(DIST, PARTS), common),
  ],
});

declarations();
writeFileSync(
  join(DIST, "package.json"),
  `${JSON.stringify(
    {
      ...manifest,
      exports: {
        ".": { types: "./types/src/index.d.ts", default: "./index.mjs" },
        "./testkit": { types: "./types/testkit/index.d.ts", default: "./testkit.mjs" },
      },
      types: "./types/src/index.d.ts",
      // The declarations speak of Node's own types.
      peerDependencies: { "@types/node": ">=24" },
      peerDependenciesMeta: { "@types/node": { optional: true } },
    },
    undefined,
    2,
  )}\n`,
);
copyFileSync(join(PACKAGE, "README.md"), join(DIST, "README.md"));
copyFileSync(join(ROOT, "LICENSE"), join(DIST, "LICENSE"));

/** Writes dist/types, with the relative imports naming files that are there. */
function declarations(): void {
  const config = join(DIST, "tsconfig.json");
  writeFileSync(
    config,
    JSON.stringify({
      extends: join(ROOT, "tsconfig.json"),
      compilerOptions: {
        noEmit: false,
        declaration: true,
        emitDeclarationOnly: true,
        rootDir: PACKAGE,
        outDir: join(DIST, "types"),
        typeRoots: [join(ROOT, "node_modules", "@types")],
      },
      include: [join(PACKAGE, "src"), join(PACKAGE, "testkit")],
      exclude: [],
    }),
  );
  const tsc = join(ROOT, "node_modules", "typescript", "bin", "tsc");
  execFileSync(process.execPath, [tsc, "-p", config], { cwd: ROOT, stdio: ["ignore", "inherit", "inherit"] });
  rmSync(config);
  // The compiler leaves ".ts" in them, and there is none in the package.
  for (const file of globSync("types/**/*.d.ts", { cwd: DIST })) {
    const text = readFileSync(join(DIST, file), "utf8");
    writeFileSync(join(DIST, file), text.replace(/(\bfrom |\bimport\()"(\.[^"]+)\.ts"/g, '$1"$2.js"'));
  }
}

function readManifest(folder: string): Manifest {
  return JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as Manifest;
}

import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { pathToFileURL } from "node:url";
import { type Plugin, Pricing, type ServiceToken, Tokenizer } from "@tokenman/plugin-sdk";
import { type BuildOptions, build } from "esbuild";
import { files } from "../../scripts/build-files.ts";
import { workers } from "../../scripts/build-workers.ts";
import { validated } from "../support/fake-setup.ts";

/** Far from any node_modules. */
const folder = mkdtempSync(join(tmpdir(), "parts-"));
after(() => rmSync(folder, { recursive: true, force: true }));
const parts = join(folder, "parts");

const options: BuildOptions = {
  absWorkingDir: join(import.meta.dirname, "../.."),
  outExtension: { ".js": ".mjs" },
  bundle: true,
  format: "esm",
  platform: "node",
  target: "node24",
  metafile: true,
  banner: {
    js: 'import { createRequire as __createRequire } from "node:module"; const require = __createRequire(import.meta.url);',
  },
  plugins: [files(parts)],
};

async function bundled(
  names: readonly string[],
): Promise<Readonly<Record<string, () => Promise<{ default: Plugin }>>>> {
  const loads = names.map((name) => `${name}: () => import("./plugins/${name}/index.ts")`);
  await build({
    ...options,
    stdin: { contents: `export default { ${loads.join(", ")} };`, resolveDir: options.absWorkingDir! },
    outdir: folder,
    chunkNames: "parts/[name]-[hash]",
    splitting: true,
    plugins: [files(parts), workers(parts, options)],
  });
  return (await import(pathToFileURL(join(folder, "stdin.mjs")).href)).default;
}

describe("the bundle's parts", () => {
  it("find their threads, and the files of packages, without any node_modules", async () => {
    const loads = await bundled(["tokenizer", "pricing"]);
    const provided = new Map<string, unknown>();
    const drops: (() => unknown)[] = [];
    for (const load of Object.values(loads)) {
      const { default: plugin } = await load();
      await plugin.setup({
        config: validated(plugin.configSchema, {}),
        log: { warn: () => assert.fail("a thread died") },
        async keep(_key: string, make: () => unknown, drop?: (value: unknown) => unknown) {
          const made = await make();
          if (drop !== undefined) drops.push(() => drop(made));
          return made;
        },
        provide: (token: ServiceToken<unknown>, value: unknown) => provided.set(token.name, value),
        pipeline() {},
      } as never);
    }
    const tokenizer = provided.get(Tokenizer.name) as Tokenizer;
    const pricing = provided.get(Pricing.name) as Pricing;
    assert.deepEqual(await tokenizer.count("gpt-4o", [{ text: "tiktoken is great!" }]), [6]);
    assert.deepEqual(await tokenizer.count("gpt-4", [{ text: "お誕生日おめでとう" }]), [9]);
    const query = { model: "claude-opus-4-5", provider: "anthropic", format: "anthropic", at: Date.now() };
    assert.equal(pricing.rates(query)?.output, 25_000);
    for (const drop of drops) await drop();
  });

  it("must be behind an import(), or the build fails", async () => {
    const building = build({
      ...options,
      logLevel: "silent",
      stdin: {
        contents: 'import { Catalogue } from "./plugins/pricing/catalogue.ts"; console.log(Catalogue);',
        resolveDir: options.absWorkingDir!,
      },
      outdir: join(folder, "main"),
    });
    await assert.rejects(building, /catalogue\.ts names a package's file and must be behind an import\(\)/);
  });
});

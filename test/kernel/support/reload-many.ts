/**
 * Reloads a changing plugin as often as asked and counts, by FinalizationRegistry, how many of the old generations
 * and of the old modules were collected. Run with --expose-gc; arguments: an empty folder, the number of reloads.
 * The plugin keeps a resource over all reloads whose value and functions refer to the context that made it: the worst
 * that a plugin may do.
 */
import { join } from "node:path";
import { type Generation, GenerationManager, KeepStore } from "../../../kernel/generation/index.ts";
import { PluginLoader } from "../../../kernel/load/index.ts";
import { build, loadFrom, memoryLog, registryOf, write } from "./generations.ts";

const [root, count] = [process.argv[2]!, Number(process.argv[3])];
const collectGarbage = (globalThis as { gc?: () => void }).gc!;

const text = (version: number) => `import { definePlugin, z, service } from "@tokenman/plugin-sdk";
const filler = ${JSON.stringify("x".repeat(50_000 + version))};
const Thing = service("Thing");
export default definePlugin({
  name: "a", version: "${version}", apiVersion: 1, provides: [Thing],
  configSchema: z.strictObject({ ttl: z.int().default(${version}) }).meta({ id: "a-config" }),
  async setup(ctx) {
    await ctx.effect("r", () => filler, () => {});
    await ctx.keep("state", () => ({ host: ctx.host, seen: 0 }), () => { void filler.length; });
    ctx.every("tick", 60_000, () => {});
    ctx.provide(Thing, { filler });
    ctx.contribute("metric", { name: "m", render: () => filler });
    ctx.pipeline((config, hooks) => {
      hooks.request.tap(() => { void config.ttl; });
      hooks.lifecycle.for("retire").tap(() => {});
      hooks.lifecycle.for("reload").tap(() => {});
    });
    if (${version} % 5 === 3) await new Promise(() => {});
    if (${version} % 5 === 4) throw new Error("a broken version");
  },
  timeouts: { setupMs: 30 },
});`;

let generations = 0;
let modules = 0;
const generationRegistry = new FinalizationRegistry(() => generations++);
const moduleRegistry = new FinalizationRegistry(() => modules++);

const registry = registryOf([]);
const loader = new PluginLoader({
  registry,
  cacheFolder: join(root, "cache"),
  version: "1",
  log: memoryLog(),
});
const keep = new KeepStore();
const quiet = { trace() {}, debug() {}, info() {}, warn() {}, error() {} };

let built = 0;
const manager = new GenerationManager({
  log: quiet,
  build: async (id) => {
    const load = await loadFrom("", { registry, dir: join(root, "plugins") }, loader);
    // Of those that fail half-way, what they were made of is counted all the same.
    moduleRegistry.register(load.loaded[0]!.plugin, undefined);
    const generation: Generation = await build(load, { id, keep, log: quiet });
    generationRegistry.register(generation, undefined);
    built++;
    // In flight over the reload, as an exchange would be.
    generation.lease();
    setImmediate(() => generation.release());
    return { generation };
  },
});

async function settledHeap(): Promise<number> {
  for (let round = 0; round < 5; round++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    collectGarbage();
  }
  return process.memoryUsage().heapUsed;
}

await write(root, { "plugins/a.ts": text(0) });
await manager.start();
let early = 0;
for (let version = 1; version <= count; version++) {
  await write(root, { "plugins/a.ts": text(version) });
  await manager.reload("changed");
  if (version === 20) early = await settledHeap();
}
const heap = await settledHeap();
process.stdout.write(JSON.stringify({ built, generations, modules, heapGrowth: heap / early }));
await manager.close();

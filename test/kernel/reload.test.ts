import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import type { ReloadEvent, SetupContext } from "@tokenman/plugin-sdk";
import { GenerationManager, type Held, KeepStore } from "../../kernel/generation/index.ts";
import { PluginLoader } from "../../kernel/load/index.ts";
import {
  build,
  config,
  folder,
  loaded,
  loadFrom,
  memoryLog,
  plugin,
  registryOf,
  source,
  write,
} from "./support/generations.ts";

type Setup = (ctx: SetupContext<unknown, never>) => void | Promise<void>;

/** A manager whose generations have one plugin with this setup. */
function managerOf(setup: Setup, log = memoryLog()): { manager: GenerationManager<Held>; builds: number[] } {
  const builds: number[] = [];
  const keep = new KeepStore();
  const manager = new GenerationManager({
    log,
    build: async (id) => {
      builds.push(id);
      return { generation: await build(loaded(plugin("a", { setup: setup as never })), { id, keep }) };
    },
  });
  return { manager, builds };
}

/** A manager over a folder of plugin files, as the kernel has it. */
async function managerOver(t: TestContext, files: Readonly<Record<string, string>>) {
  const root = await folder(t, files);
  const registry = registryOf([]);
  const log = memoryLog();
  const loader = new PluginLoader({ registry, cacheFolder: join(root, "cache"), version: "1", log });
  const keep = new KeepStore();
  const manager = new GenerationManager({
    log,
    build: async (id) => {
      const load = await loadFrom("", { registry, dir: join(root, "plugins") }, loader);
      return { generation: await build(load, { id, keep }) };
    },
  });
  await manager.start();
  t.after(() => manager.close());
  return {
    root,
    manager,
    log,
    names: () => manager.current.generation.statuses().map(({ name, version }) => `${name} ${version}`),
  };
}

describe("a reload", () => {
  it("swaps at once; the old generation stays for those who hold it, and goes with the last", async () => {
    const events: string[] = [];
    const { manager } = managerOf(async ({ effect, host }) => {
      await effect(
        "r",
        () => events.push(`+${host.generation}`),
        () => void events.push(`-${host.generation}`),
      );
    });
    const { generation: first } = await manager.start();
    first.lease();
    assert.deepEqual(await manager.reload("test"), { ok: true, generation: 2, error: undefined });
    assert.equal(manager.current.generation.id, 2);
    assert.equal(manager.retiring, 1);
    assert.deepEqual(events, ["+1", "+2"]);
    first.release();
    await first.disposed;
    assert.deepEqual(events, ["+1", "+2", "-1"]);
    assert.equal(manager.retiring, 0);
    await manager.close();
    assert.deepEqual(events, ["+1", "+2", "-1", "-2"]);
  });

  it("that fails keeps the old generation, tells why, and tells the serving plugins", async () => {
    const told: ReloadEvent[] = [];
    const log = memoryLog();
    let broken = false;
    const { manager } = managerOf(async ({ pipeline, host }) => {
      if (broken) throw new Error("no disk");
      pipeline((_, hooks) => {
        hooks.lifecycle
          .for("reload")
          .tap((event) => void told.push({ ...event, error: `${host.generation}: ${event.error}` }));
      });
    }, log);
    await manager.start();
    broken = true;
    const event = await manager.reload("SIGHUP");
    assert.deepEqual(event, {
      ok: false,
      generation: 1,
      error: 'TM_PLUGIN_SETUP plugin "a": its setup failed: no disk',
      brief: "TM_PLUGIN_SETUP",
    });
    assert.equal(manager.current.generation.id, 1);
    assert.deepEqual({ ...manager.lastReload, at: 0 }, { ...event, at: 0 });
    assert.equal(log.lines.at(-1)?.level, "error");
    broken = false;
    assert.deepEqual(await manager.reload("again"), { ok: true, generation: 2, error: undefined });
    assert.deepEqual(
      told.map(({ error }) => error),
      [`1: ${event.error}`, "2: undefined"],
    );
    await manager.close();
  });

  it("that cannot be built at all, by no fault of a plugin, does not reject either", async () => {
    let calls = 0;
    const manager = new GenerationManager({
      log: memoryLog(),
      build: async (id) => {
        if (++calls > 1) throw new TypeError("a bug");
        return { generation: await build(loaded(), { id }) };
      },
    });
    await manager.start();
    assert.deepEqual(await manager.reload("x"), {
      ok: false,
      generation: 1,
      error: "a bug",
      brief: "TM_INTERNAL",
    });
    await manager.close();
  });

  it("runs alone; all that are asked for meanwhile become one more", async () => {
    const gates: PromiseWithResolvers<void>[] = [];
    const { manager, builds } = managerOf(() => gates.at(-1)?.promise);
    await manager.start();
    gates.push(Promise.withResolvers());
    const first = manager.reload("one");
    const others = [manager.reload("two"), manager.reload("three"), manager.reload("four")];
    gates[0]!.resolve();
    assert.equal((await first).generation, 2);
    assert.deepEqual(
      (await Promise.all(others)).map(({ generation }) => generation),
      [3, 3, 3],
    );
    assert.deepEqual(builds, [1, 2, 3]);
    await manager.close();
    assert.equal((await manager.reload("late")).error, "TokenMan is shutting down");
  });

  it("hands a kept resource on, and drops it when no generation holds it", async () => {
    const events: string[] = [];
    let keeps = true;
    const { manager } = managerOf(async ({ keep }) => {
      if (keeps)
        await keep(
          "db",
          () => events.push("+db"),
          () => void events.push("-db"),
        );
    });
    await manager.start();
    await manager.reload("1");
    await manager.reload("2");
    assert.deepEqual(events, ["+db"]);
    keeps = false;
    const last = manager.current.generation;
    await manager.reload("3");
    await last.disposed;
    assert.deepEqual(events, ["+db", "-db"]);
    await manager.close();
  });

  it("does not wait for ever at the end for those who never let go", { timeout: 20_000 }, async (t) => {
    t.mock.timers.enable({ apis: ["setTimeout"] });
    const { manager } = managerOf(() => {});
    const { generation } = await manager.start();
    generation.lease();
    const closing = manager.close();
    // The grace period has begun once the retiring is through.
    await new Promise((resolve) => setImmediate(resolve));
    await new Promise((resolve) => setImmediate(resolve));
    t.mock.timers.tick(5_000);
    await closing;
    await generation.disposed;
  });
});

describe("plugin files", () => {
  it("are taken in, changed and removed by reloads", async (t) => {
    const { root, manager, names } = await managerOver(t, { "plugins/a.ts": source("a") });
    assert.deepEqual(names(), ["a 1.0.0"]);
    await write(root, {
      "plugins/a.ts": source("a").replace("1.0.0", "2.0.0"),
      "plugins/b/index.ts": source("b"),
    });
    assert.equal((await manager.reload("files")).ok, true);
    assert.deepEqual(names(), ["a 2.0.0", "b 1.0.0"]);
  });

  it("that are broken leave the running ones alone, and are told with place and frame", async (t) => {
    const { root, manager, names, log } = await managerOver(t, { "plugins/a.ts": source("a") });
    await write(root, { "plugins/a.ts": "export default {" });
    const event = await manager.reload("files");
    assert.equal(event.ok, false);
    assert.equal(
      event.error,
      `${root}/plugins/a.ts:1:17: TM_PLUGIN_COMPILE Expected identifier but found end of file\n> 1 | export default {\n    |                 ^`,
    );
    assert.deepEqual(names(), ["a 1.0.0"]);
    assert.match(log.lines.at(-1)!.message!, /reload failed, generation 1 stays: .*a\.ts:1:17/s);
  });

  it("whose setup throws are told with the line that threw", async (t) => {
    const { root, manager } = await managerOver(t, { "plugins/a.ts": source("a") });
    await write(root, {
      "plugins/a.ts": `import { definePlugin } from "@tokenman/plugin-sdk";
type T = string;
export default definePlugin({ name: "a", version: "1", apiVersion: 1,
  setup() {
    throw new Error("cannot start");
  } });`,
    });
    const { error } = await manager.reload("files");
    assert.match(
      error!,
      /a\.ts:5:11: TM_PLUGIN_SETUP plugin "a": its setup failed: cannot start\n.*> 5 \| {5}throw new Error/s,
    );
  });

  it("are found in the stack of a stray error", async (t) => {
    const root = await folder(t, {
      "p/a.ts": `import { definePlugin } from "@tokenman/plugin-sdk";
export default definePlugin({ name: "a", version: "1", apiVersion: 1, setup() {}, description: new Error("x").stack });`,
    });
    const load = await loadFrom(join(root, "cache"), { dir: join(root, "p") });
    const generation = await build(load);
    const stray = Object.assign(new Error("x"), { stack: load.loaded[0]!.plugin.description });
    assert.equal(generation.ownerOf(stray)?.name, "a");
    assert.equal(generation.ownerOf(new Error("of nobody")), undefined);
    await generation.dispose();
  });

  it("have their own config under plugins.configs, a raw table where they have no schema", async (t) => {
    const root = await folder(t, {
      "p/free.ts": source("free"),
      "p/strict.ts": source("strict", "configSchema: z.strictObject({ size: z.int().default(1) })").replace(
        "{ definePlugin }",
        "{ definePlugin, z }",
      ),
    });
    const load = await loadFrom(join(root, "cache"), { dir: join(root, "p") });
    const toml =
      "[plugins.configs.free]\nany = [1, 2]\nenabled = false\n[plugins.configs.strict]\nsize = 2\n[projects.p.plugins.configs.strict]\nsize = 3\n";
    const { section, enabled } = await config(toml, load);
    assert.deepEqual({ ...(section("plugins.configs.free") as object) }, { any: [1, 2], enabled: false });
    assert.equal(enabled("plugins.configs.free"), false);
    assert.deepEqual(section("plugins.configs.strict"), { size: 2 });
    await assert.rejects(config("[plugins.configs.strict]\nsiz = 2\n", load), /did you mean|size/);
  });

  it("are all watched, with what they import", async (t) => {
    let watched: readonly string[] = [];
    const root = await folder(t, { "p/a/index.ts": `import "./b.ts";\n${source("a")}`, "p/a/b.ts": "" });
    const load = await loadFrom(join(root, "cache"), { dir: join(root, "p") });
    const watcher = plugin("w", {
      setup: ((ctx: SetupContext<unknown, never>) => {
        watched = ctx.host.watched;
      }) as never,
    });
    const generation = await build({ ...load, loaded: [...load.loaded, ...loaded(watcher).loaded] });
    assert.deepEqual(
      watched.map((file) => file.replace(root, "")),
      ["/p/a/b.ts", "/p/a/index.ts"],
    );
    await generation.dispose();
  });
});

it("old generations and the modules of changed plugins are collected", { timeout: 120_000 }, async (t) => {
  const root = await folder(t);
  const child = spawn(
    process.execPath,
    ["--expose-gc", join(import.meta.dirname, "support/reload-many.ts"), root, "100"],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  let output = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  const [code] = await once(child, "close");
  assert.equal(code, 0);
  const { built, generations, modules, heapGrowth } = JSON.parse(output) as Record<string, number>;
  // Three of five versions are sound; the last generation built still serves.
  assert.equal(built, 61);
  assert.ok(generations! >= 57, `${generations} of 60 generations collected`);
  assert.ok(modules! >= 95, `${modules} of 100 modules collected`);
  assert.ok(heapGrowth! < 1.1, `the heap grew by the factor ${heapGrowth}`);
});

import assert from "node:assert/strict";
import { chmod, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { describe, it, type TestContext } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { API_VERSION, TokenmanError } from "@tokenman/plugin-sdk";
import { PluginLoader } from "../../kernel/load/index.ts";
import { folder, loadFrom, memoryLog, plugin, registryOf, source, write } from "./support/generations.ts";

function told(problems: readonly TokenmanError[]): string[] {
  return problems.map(({ code, message }) => `${code} ${message}`);
}

/** Loads a folder with these files in it, and nothing compiled yet. */
async function load(
  t: TestContext,
  files: Readonly<Record<string, string>> = {},
  options: Parameters<typeof loadFrom>[1] = {},
) {
  const root = await folder(t, files);
  return { root, ...(await loadFrom(join(root, "cache"), { dir: root, ...options })) };
}

describe("loading plugin files", () => {
  it("compiles TypeScript and bundles the plugin's own modules and dependencies", async (t) => {
    const { loaded, problems, root } = await load(t, {
      "package.json": '{"type":"module"}',
      "mine/index.ts": `import { definePlugin } from "@tokenman/plugin-sdk";
import shout from "shout";
import { basename } from "node:path";
import { suffix } from "./suffix.ts";
const name: string = shout("mine") + suffix;
export default definePlugin({
  name, version: basename(import.meta.url), apiVersion: 1,
  async setup() { const { suffix: again } = await import("./suffix.ts"); return again as never; },
});`,
      "mine/suffix.ts": `export const suffix: string = "-two";`,
      "mine/node_modules/shout/package.json": '{"name":"shout","main":"lib.cjs"}',
      "mine/node_modules/shout/lib.cjs": "module.exports = (text) => text.toLowerCase();",
    });
    assert.deepEqual(told(problems), []);
    const [mine] = loaded;
    assert.equal(mine?.plugin.name, "mine-two");
    assert.equal(mine.plugin.version, "index.ts");
    assert.equal(await mine.plugin.setup({} as never), "-two");
    assert.deepEqual(
      mine.inputs.map((input) => input.replace(`${root}/`, "")),
      [
        "mine/index.ts",
        "mine/node_modules/shout/lib.cjs",
        "mine/node_modules/shout/package.json",
        "mine/suffix.ts",
        "package.json",
      ],
    );
  });

  it("supplies the host's own SDK, so that its classes are the same ones", async (t) => {
    const { loaded } = await load(t, {
      "a.ts": `import { definePlugin, TokenmanError } from "@tokenman/plugin-sdk";
export default definePlugin({ name: "a", version: "1", apiVersion: 1, setup() { throw new TokenmanError("TM_INTERNAL"); } });`,
    });
    const setup = () => loaded[0]!.plugin.setup({} as never);
    assert.throws(setup, { name: "TokenmanError", code: "TM_INTERNAL" });
    assert.throws(setup, TokenmanError);
  });

  it("loads a CommonJS plugin, too", async (t) => {
    const { loaded, problems } = await load(t, {
      "a.cjs": `const { definePlugin } = require("@tokenman/plugin-sdk");
module.exports = definePlugin({ name: "a", version: "1", apiVersion: 1, setup() {} });`,
    });
    assert.deepEqual(told(problems), []);
    assert.equal(loaded[0]?.plugin.name, "a");
  });

  it("names the plugin's own file and line in a stack trace", async (t) => {
    const { loaded, root } = await load(t, {
      "a.ts": `import { definePlugin } from "@tokenman/plugin-sdk";
interface Unused { readonly a: number }

export default definePlugin({ name: "a", version: "1", apiVersion: 1,
  setup() { throw new Error("here"); } });`,
    });
    assert.throws(
      () => loaded[0]!.plugin.setup({} as never),
      (error: Error) => {
        assert.match(error.stack!, new RegExp(`${root}/a\\.ts:5:19`));
        return true;
      },
    );
  });

  it("still names them when garbage was collected since", async (t) => {
    const { loaded, root } = await load(t, {
      "a.ts": `import { definePlugin } from "@tokenman/plugin-sdk";
interface Unused { readonly a: number }

export default definePlugin({ name: "a", version: "1", apiVersion: 1,
  setup() { throw new Error("here"); } });`,
    });
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    for (let round = 0; round < 3; round++) {
      collect();
      // What FinalizationRegistry and WeakRef let go of is gone after the turn only.
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.throws(
      () => loaded[0]!.plugin.setup({} as never),
      (error: Error) => error.stack!.includes(`${root}/a.ts:5:19`),
    );
  });

  it("does not read a tsconfig.json above the plugin", async (t) => {
    const root = await folder(t, { "tsconfig.json": "{ this is not json", "plugins/a.ts": source("a") });
    const { problems } = await loadFrom(join(root, "cache"), { dir: join(root, "plugins") });
    assert.deepEqual(told(problems), []);
  });

  it("finds a plugin of the folder by its declared name, which fixes its place", async (t) => {
    const { loaded, problems } = await load(
      t,
      { "file-a.ts": source("alpha"), "file-b.ts": source("beta") },
      { order: ["beta"] },
    );
    assert.deepEqual(told(problems), []);
    assert.deepEqual(
      loaded.map((each) => [each.plugin.name, each.listed]),
      [
        ["beta", true],
        ["alpha", false],
      ],
    );
  });

  it("leaves a plugin of the folder out by its declared name", async (t) => {
    const { loaded, leftOut } = await load(
      t,
      { "file-a.ts": source("alpha"), "file-b.ts": source("beta") },
      { flag: "-beta" },
    );
    assert.deepEqual(
      loaded.map((each) => each.plugin.name),
      ["alpha"],
    );
    assert.equal(leftOut[0]?.reason, "left out by --plugins -beta");
  });
});

describe("the compile cache", () => {
  const entry = (word: string) => `import { definePlugin } from "@tokenman/plugin-sdk";
import { word } from "./word.ts";
export default definePlugin({ name: "a", version: word + ${JSON.stringify(word)}, apiVersion: 1, setup() {} });`;

  it("is private, and holds one compiled file for each plugin file", async (t) => {
    const root = await folder(t, { "p/a/index.ts": entry("1"), "p/a/word.ts": `export const word = "x";` });
    const cache = join(root, "cache");
    for (const word of ["1", "2", "3"]) {
      await write(root, { "p/a/index.ts": entry(word) });
      const { loaded } = await loadFrom(cache, { dir: join(root, "p") });
      assert.equal(loaded[0]?.plugin.version, `x${word}`);
    }
    assert.equal((await stat(cache)).mode & 0o777, 0o700);
    const files = await readdir(cache);
    assert.deepEqual(files.map((file) => file.split(".")[1]).sort(), ["cjs", "json"]);
    for (const file of files) assert.equal((await stat(join(cache, file))).mode & 0o777, 0o600);
  });

  it("is used while no input changed, and not any more when one did, an imported one too", async (t) => {
    const root = await folder(t, { "p/a/index.ts": entry("1"), "p/a/word.ts": `export const word = "x";` });
    const cache = join(root, "cache");
    const written = async () =>
      Promise.all((await readdir(cache)).sort().map(async (file) => (await stat(join(cache, file))).ino));
    await loadFrom(cache, { dir: join(root, "p") });
    const first = await written();
    await loadFrom(cache, { dir: join(root, "p") });
    assert.deepEqual(await written(), first, "written again");
    await write(root, { "p/a/word.ts": `export const word = "y";` });
    const { loaded } = await loadFrom(cache, { dir: join(root, "p") });
    assert.equal(loaded[0]?.plugin.version, "y1");
    assert.notDeepEqual(await written(), first);
  });

  it("is not believed where its files were changed", async (t) => {
    const root = await folder(t, { "p/a.ts": source("a") });
    const cache = join(root, "cache");
    await loadFrom(cache, { dir: join(root, "p") });
    const code = (await readdir(cache)).find((file) => file.endsWith(".cjs"))!;
    await write(cache, { [code]: "throw new Error('forged')" });
    const { problems } = await loadFrom(cache, { dir: join(root, "p") });
    assert.deepEqual(told(problems), []);
    const manifest = (await readdir(cache)).find((file) => file.endsWith(".json"))!;
    await write(cache, { [manifest]: '{"key":' });
    assert.deepEqual(told((await loadFrom(cache, { dir: join(root, "p") })).problems), []);
  });

  it("costs only time where it cannot be written", async (t) => {
    const root = await folder(t, { "p/a.ts": source("a"), cache: "a file where the folder should be" });
    const log = memoryLog();
    const registry = registryOf([]);
    const loader = new PluginLoader({ registry, cacheFolder: join(root, "cache"), version: "1", log });
    const { loaded } = await loadFrom("", { registry, dir: join(root, "p") }, loader);
    assert.equal(loaded[0]?.plugin.name, "a");
    assert.equal(log.lines[0]?.message, "compiled plugins cannot be cached");
  });

  it("lets an unchanged plugin keep its module, and gives a changed one a new module", async (t) => {
    const root = await folder(t, { "p/a.ts": source("a"), "p/b.ts": source("b") });
    const registry = registryOf([]);
    const loader = new PluginLoader({
      registry,
      cacheFolder: join(root, "cache"),
      version: "1",
      log: memoryLog(),
    });
    const load = async () =>
      (await loadFrom("", { registry, dir: join(root, "p") }, loader)).loaded.map((each) => each.plugin);
    const [a1, b1] = await load();
    await write(root, { "p/b.ts": source("b", "description: 'changed'") });
    const [a2, b2] = await load();
    assert.equal(a1, a2);
    assert.notEqual(b1, b2);
    assert.equal(b2?.description, "changed");
  });
});

describe("a plugin that cannot be loaded", () => {
  it("is told with file, line, column and code frame where it does not compile", async (t) => {
    const { problems, root } = await load(t, { "a.ts": "const fine = 1;\nconst broken = ;\n" });
    assert.equal(
      problems[0]?.describe(),
      `${root}/a.ts:2:16: TM_PLUGIN_COMPILE Unexpected ";"
  1 | const fine = 1;
> 2 | const broken = ;
    |                ^
  3 |`,
    );
  });

  it("is told at the import where a module is missing, with a hint for zod", async (t) => {
    const { problems } = await load(t, {
      "a.ts": `import { z } from "zod";\nimport gone from "./gone.ts";\nexport default [z, gone];`,
    });
    assert.deepEqual(
      problems.map(({ place }) => [place?.line, place?.column]),
      [
        [1, 19],
        [2, 18],
      ],
    );
    assert.match(problems[0]!.message, /import \{ z \} from "@tokenman\/plugin-sdk" instead/);
  });

  it("is told with its place where its module throws", async (t) => {
    const { problems, root } = await load(t, { "a.ts": `type A = 1;\n\nnull!.x;\nexport default 1;` });
    assert.equal(problems[0]?.code, "TM_PLUGIN_LOAD");
    assert.match(
      problems[0].describe(),
      new RegExp(`^${root}/a\\.ts:3:7: TM_PLUGIN_LOAD a failed while it was loaded: `),
    );
    assert.match(problems[0].place!.frame!, /> 3 \| null!\.x;/);
  });

  const helper =
    "; a file that a plugin imports belongs in that plugin's own folder: plugins.dir/NAME/index.ts";
  for (const [what, code, found] of [
    ["exports nothing", "export {};", "a module that exports nothing"],
    ["has named exports only", "export const a = 1, b = 2;", "no default export, only: a, b"],
    ["exports a function", "export default () => 1;", "a function"],
    [
      "exports a bare object",
      "export default { name: 'x', setup() {} };",
      "an object with name, setup that did not go through definePlugin",
    ],
    ["exports text", "export default 'x';", '"x"'],
  ] as const) {
    it(`is told what was found where it ${what}`, async (t) => {
      const { problems, root } = await load(t, { "a.ts": code });
      assert.deepEqual(told(problems), [
        `TM_PLUGIN_SHAPE expected the default export to be a plugin made by definePlugin(…); found ${found}${
          // Whoever wrote a set-up did not mean a helper.
          code.includes("setup") ? "" : helper
        }`,
      ]);
      assert.equal(problems[0]?.place?.file, join(root, "a.ts"));
    });
  }

  it("is told all that is wrong with its definition at once", async (t) => {
    const { problems } = await load(t, {
      "a.ts": `import { definePlugin } from "@tokenman/plugin-sdk";
export default definePlugin({ name: "Bad Name", version: 2, apiVersion: "1", stage: "middle", onError: "maybe",
  timeouts: { setupMs: -1, hookS: 2 }, needs: { a: "Ledger" }, provides: [{}], configSchema: {} } as never);`,
    });
    assert.equal(problems.length, 1);
    assert.deepEqual(problems[0]!.message.split("; "), [
      'plugin "Bad Name": name: expected lower-case words joined by dashes, found "Bad Name"',
      "version: expected a string, found 2",
      'apiVersion: expected 1, found "1"',
      "setup: expected a function, found nothing",
      'stage: expected one of ingress, lookup, guard, admit, shape, route, found "middle"',
      'onError: expected "open" or "closed", found "maybe"',
      "configSchema: expected a zod or Standard Schema, found an object",
      "timeouts.setupMs: expected milliseconds above 0, found -1",
      "timeouts.hookS: not known",
      "expected setupMs or hookMs",
      'needs.a: expected a service token, found "Ledger"',
      "provides[0]: expected a service token, found an object",
    ]);
  });

  it("is refused where it was written for a newer API", async (t) => {
    const { problems } = await load(t, {
      "a.ts": source("a").replace(
        "apiVersion: 1",
        `apiVersion: ${API_VERSION + 1}, stage: "new-one" as never`,
      ),
    });
    assert.deepEqual(told(problems), [
      `TM_PLUGIN_API_VERSION plugin "a" is written for plugin API 2; this TokenMan has 1: update TokenMan`,
    ]);
  });

  it("is refused where another has its name, naming both files", async (t) => {
    const registry = registryOf([plugin("cache")]);
    const { problems, root } = await load(
      t,
      { "a.ts": source("same"), "b.ts": source("same"), "c.ts": source("cache") },
      { registry },
    );
    assert.deepEqual(told(problems), [
      `TM_PLUGIN_DUPLICATE two plugins are named "same": ${root}/a.ts (plugins.dir) and ${root}/b.ts (plugins.dir); leave one out or rename it`,
      `TM_PLUGIN_DUPLICATE two plugins are named "cache": the built-in one (the default order) and ${root}/c.ts (plugins.dir); leave one out or rename it`,
    ]);
  });

  it("may take the name of a built-in one that is left out", async (t) => {
    const registry = registryOf([plugin("cache")]);
    const { loaded, problems, root } = await load(t, { "my.ts": source("cache") }, { registry, order: [] });
    assert.deepEqual(told(problems), []);
    assert.equal(loaded[0]?.source, join(root, "my.ts"));
  });

  it("is refused where every user could write its source, an imported one too", {
    skip: process.platform === "win32",
  }, async (t) => {
    const root = await folder(t, {
      "a.ts": source("a"),
      "b/index.ts": `import "./part.ts";\n${source("b")}`,
      "b/part.ts": "",
    });
    await chmod(join(root, "a.ts"), 0o666);
    await chmod(join(root, "b/part.ts"), 0o646);
    const { problems, loaded } = await loadFrom(join(root, "cache"), { dir: root });
    assert.deepEqual(told(problems), [
      `TM_PLUGIN_WRITABLE ${root}/a.ts is writable by every user (mode 666); run: chmod o-w '${root}/a.ts'`,
      `TM_PLUGIN_WRITABLE ${root}/b/part.ts is writable by every user (mode 646); run: chmod o-w '${root}/b/part.ts'`,
    ]);
    assert.deepEqual(loaded, []);
  });

  it("is told by its nearest name where there is no such plugin", async (t) => {
    const registry = registryOf([plugin("cache"), plugin("pii")]);
    const order = ["cahce", "add-heder", "zzz"];
    const { problems } = await load(t, { "header.ts": source("add-header") }, { registry, order });
    assert.deepEqual(told(problems), [
      'TM_PLUGIN_NOT_FOUND no plugin named "cahce" (named in [plugins] order); did you mean "cache"?',
      'TM_PLUGIN_NOT_FOUND no plugin named "add-heder" (named in [plugins] order); did you mean "add-header"?',
      'TM_PLUGIN_NOT_FOUND no plugin named "zzz" (named in [plugins] order); known: add-header, cache, pii',
    ]);
  });

  it("does not hide the problems of the others", async (t) => {
    const { problems, loaded } = await load(t, {
      "a.ts": "const a = ;",
      "b.ts": "export default 1;",
      "c.ts": "throw 1;",
      "d.ts": source("d"),
    });
    assert.deepEqual(
      problems.map(({ code }) => code),
      ["TM_PLUGIN_COMPILE", "TM_PLUGIN_SHAPE", "TM_PLUGIN_LOAD"],
    );
    assert.deepEqual(
      loaded.map((each) => each.plugin.name),
      ["d"],
    );
  });

  it("is told where a built-in one cannot be imported", async (t) => {
    const root = await folder(t);
    const registry = {
      ...registryOf([plugin("cache")]),
      load: async () => Promise.reject(new Error("broken build")),
    };
    const { problems } = await loadFrom(join(root, "cache"), { registry });
    assert.deepEqual(told(problems), ['TM_PLUGIN_LOAD built-in plugin "cache": broken build']);
  });
});

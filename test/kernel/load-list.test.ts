import assert from "node:assert/strict";
import { symlink } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import { type PluginList, type PluginListOptions, resolvePluginList } from "../../kernel/load/index.ts";
import { folder, plugin, registryOf, source } from "./support/generations.ts";

const registry = registryOf(
  ["cache", "pii", "history", "router", "health"].map((name) => plugin(name)),
  ["router", "health"],
);

function resolve(options: Partial<PluginListOptions>): Promise<PluginList> {
  return resolvePluginList({
    registry,
    order: undefined,
    dir: undefined,
    flag: undefined,
    configDir: undefined,
    ...options,
  });
}
function listed({ entries }: PluginList): string[] {
  return entries
    .filter((entry) => entry.listed)
    .map(({ source }) => ("file" in source ? source.file : source.name));
}
function placed({ entries }: PluginList): string[] {
  return entries
    .filter((entry) => !entry.listed)
    .map(({ source }) => ("file" in source ? source.file : source.name));
}
function problems(list: PluginList): string[] {
  return list.problems.map(({ code, message }) => `${code} ${message}`);
}

describe("the list of plugins", () => {
  it("is the default order, and what is always on beside it", async () => {
    const list = await resolve({});
    assert.deepEqual(listed(list), ["cache", "pii", "history"]);
    assert.deepEqual(placed(list), ["router", "health"]);
    assert.deepEqual(list.leftOut, []);
  });

  it("is replaced by the config's order, and says what that leaves out", async () => {
    const list = await resolve({ order: ["pii", "router", "cache"] });
    assert.deepEqual(listed(list), ["pii", "router", "cache"]);
    assert.deepEqual(placed(list), ["health"]);
    assert.deepEqual(list.leftOut, [
      { name: "history", source: "built in", reason: "not named in [plugins] order" },
    ]);
  });

  it("is replaced by the names of --plugins, but for what is always on", async (t) => {
    const dir = await folder(t, { "extra.ts": source("extra") });
    const list = await resolve({ order: ["pii"], flag: "history, cache", dir });
    assert.deepEqual(listed(list), ["history", "cache"]);
    assert.deepEqual(placed(list), ["router", "health"]);
    assert.deepEqual(
      list.leftOut.map(({ name, reason }) => `${name}: ${reason}`),
      ["extra: not named in --plugins", "pii: not named in --plugins"],
    );
  });

  it("is empty but for what is always on with --plugins ''", async () => {
    const list = await resolve({ flag: "" });
    assert.deepEqual(listed(list), []);
    assert.deepEqual(placed(list), ["router", "health"]);
  });

  it("is edited by + and - in --plugins; what is added is placed by its stage", async (t) => {
    const cwd = await folder(t, { "c.ts": source("c") });
    const list = await resolve({ flag: "+./c.ts,-history", cwd });
    assert.deepEqual(listed(list), ["cache", "pii"]);
    assert.deepEqual(placed(list), [join(cwd, "c.ts"), "router", "health"]);
    assert.deepEqual(list.leftOut, [
      { name: "history", source: "built in", reason: "left out by --plugins -history" },
    ]);
  });

  it("cannot mix names and edits in --plugins", async () => {
    const list = await resolve({ flag: "+cache,pii" });
    assert.deepEqual(problems(list), [
      'TM_USAGE --plugins +cache,pii: either names only ("a,b") or edits only ("+a,-b"), but "pii" has no sign',
    ]);
  });

  it("takes in each file and each folder with an entry in the plugins folder", async (t) => {
    const dir = await folder(t, {
      "one.ts": source("one"),
      "one.d.ts": "",
      "one.test.ts": "",
      "notes.md": "",
      ".hidden.ts": "",
      "node_modules/dep/index.js": "",
      "two/index.ts": source("two"),
      "three/package.json": '{"main":"./src/main.mjs"}',
      "three/src/main.mjs": source("three"),
      "three/index.ts": "",
      "half-written/package.json": '{"main":"./src/ma',
      "half-written/index.js": source("half"),
      "lib/helper.ts": "",
    });
    const list = await resolve({ dir, order: [] });
    assert.deepEqual(
      placed(list).map((path) => path.replace(`${dir}/`, "")),
      ["router", "health", "half-written/index.js", "one.ts", "three/src/main.mjs", "two/index.ts"],
    );
    assert.deepEqual(
      list.leftOut.filter(({ name }) => name === "lib").map(({ reason }) => reason),
      ["the folder has no index.ts and no package.json main"],
    );
    assert.deepEqual(problems(list), []);
  });

  it("may name a plugin of the folder by its file's name, which fixes its place", async (t) => {
    const dir = await folder(t, { "one.ts": source("uno"), "two/index.ts": source("two") });
    const list = await resolve({ dir, order: ["two", "cache", "one"] });
    assert.deepEqual(listed(list), [join(dir, "two/index.ts"), "cache", join(dir, "one.ts")]);
  });

  it("takes paths relative to the config file's folder", async (t) => {
    const configDir = await folder(t, { "mine/x.ts": source("x") });
    const list = await resolve({ configDir, order: ["./mine/x.ts"] });
    assert.deepEqual(listed(list), [join(configDir, "mine/x.ts")]);
  });

  it("refuses a name that is there twice, naming both lists", async () => {
    assert.deepEqual(problems(await resolve({ order: ["cache", "pii", "cache"] })), [
      "TM_PLUGIN_DUPLICATE cache is named twice, in [plugins] order; the order takes it once",
    ]);
  });

  it("has no plugins folder where none was made", async () => {
    assert.deepEqual(problems(await resolve({ dir: "/nowhere/plugins" })), []);
  });
});

describe("a plugin path", () => {
  it("must be inside the config's folder, the plugins folder, or for --plugins the current folder", async (t) => {
    const outside = await folder(t, { "evil.ts": source("evil") });
    const configDir = await folder(t, { "in.ts": source("in") });
    const cwd = await folder(t, { "here.ts": source("here") });
    const evil = join(outside, "evil.ts");
    const byOrder = await resolve({
      configDir,
      cwd,
      order: [evil, join(cwd, "here.ts"), join(configDir, "in.ts")],
    });
    assert.deepEqual(listed(byOrder), [join(configDir, "in.ts")]);
    assert.deepEqual(problems(byOrder), [
      `TM_PLUGIN_OUTSIDE ${evil} is outside the folders that may hold plugins: ${configDir} (the config file's folder)`,
      `TM_PLUGIN_OUTSIDE ${cwd}/here.ts is outside the folders that may hold plugins: ${configDir} (the config file's folder)`,
    ]);
    const byFlag = await resolve({ configDir, cwd, flag: `./here.ts,${evil}` });
    assert.deepEqual(listed(byFlag), [join(cwd, "here.ts")]);
    assert.equal(byFlag.problems[0]?.code, "TM_PLUGIN_OUTSIDE");
  });

  it("cannot leave with dots, and a folder whose name merely begins alike is no part of a root", async (t) => {
    const root = await folder(t, { "config/x.ts": "", "config-two/evil.ts": source("evil") });
    const list = await resolve({ configDir: join(root, "config"), order: ["../config-two/evil.ts"] });
    assert.equal(list.problems[0]?.code, "TM_PLUGIN_OUTSIDE");
  });

  it("cannot leave through a symbolic link to a file, a folder, or a package's main", async (t) => {
    const outside = await folder(t, { "evil.ts": source("evil"), "pack/index.ts": source("evil") });
    const dir = await folder(t, {
      "third/package.json": `{"main":"../../${outside.split("/").at(-1)}/evil.ts"}`,
    });
    await symlink(join(outside, "evil.ts"), join(dir, "first.ts"));
    await symlink(join(outside, "pack"), join(dir, "second"));
    const list = await resolve({ dir });
    assert.deepEqual(
      list.problems.map(({ code }) => code),
      ["TM_PLUGIN_OUTSIDE", "TM_PLUGIN_OUTSIDE", "TM_PLUGIN_OUTSIDE"],
    );
    assert.match(list.problems[0]!.message, /first\.ts \(really .*evil\.ts\) is outside/);
  });

  it("may be a link from one root into another", async (t) => {
    const root = await folder(t, { "src/x.ts": source("x"), "plugins/.keep": "" });
    await symlink(join(root, "src/x.ts"), join(root, "plugins/x.ts"));
    const list = await resolve({ configDir: root, dir: join(root, "plugins"), order: [] });
    assert.ok(placed(list).includes(join(root, "src/x.ts")));
    assert.deepEqual(problems(list), []);
  });

  it("must exist and be a source file or a folder with an entry; all faults are told", async (t) => {
    const configDir = await folder(t, { "empty/readme.md": "", "notes.md": "" });
    const list = await resolve({ configDir, order: ["./gone.ts", "./empty", "./notes.md"] });
    assert.deepEqual(problems(list), [
      `TM_PLUGIN_NOT_FOUND no plugin at ${configDir}/gone.ts: there is no such file or folder`,
      `TM_PLUGIN_NOT_FOUND ${configDir}/empty is a folder without an index.ts and without a package.json that names a main`,
      `TM_PLUGIN_NOT_FOUND ${configDir}/notes.md is no plugin: expected a .ts, .mts, .cts, .js, .mjs, .cjs file or a folder`,
    ]);
  });

  it("carries the place of its name in the config file", async () => {
    const place = { file: "/config/tokenman.toml", line: 3, column: 10 };
    const list = await resolve({ configDir: "/config", order: ["./gone.ts"], placeOf: () => place });
    assert.deepEqual(list.problems[0]?.place, place);
  });
});

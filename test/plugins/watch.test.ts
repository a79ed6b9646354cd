import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { Follower } from "../../plugins/watch/follower.ts";
import watch from "../../plugins/watch/index.ts";
import { type RunningKernel, runKernel } from "../support/running-kernel.ts";

const silent = { trace() {}, debug() {}, info() {}, warn() {}, error() {} };

describe("what is followed", () => {
  let folder: string;
  let follower: Follower;
  let reasons: string[];
  let told: EventEmitter;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "watch-"));
    follower = new Follower();
    reasons = [];
    told = new EventEmitter();
  });
  afterEach(async () => {
    await follower.close();
    rmSync(folder, { recursive: true });
  });

  const path = (...parts: string[]) => join(folder, ...parts);
  const follow = (...files: string[]) =>
    follower.follow({
      files,
      debounceMs: 5,
      log: silent,
      changed: async (reason) => {
        reasons.push(reason);
        told.emit("reason");
      },
    });
  /** Does something, and gives the reason that it led to. */
  async function reasonFor(act: () => void): Promise<string | undefined> {
    const next = once(told, "reason");
    act();
    await next;
    return reasons.pop();
  }

  test("a file that is written, replaced, removed, and made again", async () => {
    writeFileSync(path("c.toml"), "a = 1");
    await follow(path("c.toml"));
    assert.equal(await reasonFor(() => writeFileSync(path("c.toml"), "a = 2")), "c.toml changed");
    assert.equal(await reasonFor(() => appendFileSync(path("c.toml"), "\n")), "c.toml changed");
    writeFileSync(path("draft"), "a = 3");
    assert.equal(await reasonFor(() => renameSync(path("draft"), path("c.toml"))), "c.toml changed");
    assert.equal(await reasonFor(() => rmSync(path("c.toml"))), "c.toml changed");
    assert.equal(await reasonFor(() => writeFileSync(path("c.toml"), "a = 4")), "c.toml changed");
  });

  test("a file that does not exist yet", async () => {
    await follow(path("c.toml"));
    assert.equal(await reasonFor(() => writeFileSync(path("c.toml"), "a = 1")), "c.toml changed");
  });

  test("content: what is touched, rewritten as it was, or changed and changed back is no change", async () => {
    writeFileSync(path("c.toml"), "a = 1");
    writeFileSync(path("d.ts"), "1");
    await follow(path("c.toml"), path("d.ts"));
    utimesSync(path("c.toml"), new Date(), new Date());
    writeFileSync(path("c.toml"), "a = 1");
    chmodSync(path("c.toml"), 0o600);
    writeFileSync(path("neighbour.toml"), "not followed");
    // The next real change is the only one that is told.
    assert.equal(await reasonFor(() => writeFileSync(path("d.ts"), "2")), "d.ts changed");
    assert.deepEqual(reasons, []);
  });

  test("a folder of plugins: sources at any depth, and nothing else", async () => {
    mkdirSync(path("plugins", "one"), { recursive: true });
    await follow(path("plugins"));
    assert.equal(await reasonFor(() => writeFileSync(path("plugins", "a.ts"), "1")), "a.ts changed");
    assert.equal(await reasonFor(() => writeFileSync(path("plugins", "one", "b.ts"), "1")), "b.ts changed");
    for (const other of ["notes.txt", ".a.ts.swp", ".hidden.ts"]) writeFileSync(path("plugins", other), "x");
    mkdirSync(path("plugins", "node_modules"));
    writeFileSync(path("plugins", "node_modules", "m.js"), "x");
    assert.equal(await reasonFor(() => rmSync(path("plugins", "one"), { recursive: true })), "b.ts changed");
    assert.deepEqual(reasons, []);
  });

  test("a folder of plugins that is made later, even empty at first", async () => {
    await follow(path("plugins"));
    mkdirSync(path("plugins"));
    assert.equal(await reasonFor(() => writeFileSync(path("plugins", "a.ts"), "1")), "a.ts changed");
    assert.equal(await reasonFor(() => writeFileSync(path("plugins", "a.ts"), "2")), "a.ts changed");
  });

  test("other files from now on, without losing a change in between", async () => {
    writeFileSync(path("a.ts"), "1");
    writeFileSync(path("b.ts"), "1");
    await follow(path("a.ts"));
    const changed = reasonFor(() => writeFileSync(path("a.ts"), "2"));
    await follow(path("a.ts"), path("b.ts"));
    assert.equal(await changed, "a.ts changed");
    assert.equal(await reasonFor(() => writeFileSync(path("b.ts"), "2")), "b.ts changed");
    await follow(path("b.ts"));
    writeFileSync(path("a.ts"), "3");
    assert.equal(await reasonFor(() => writeFileSync(path("b.ts"), "3")), "b.ts changed");
    assert.deepEqual(reasons, []);
  });

  test("what changes while a change is acted on is acted on afterwards", async () => {
    writeFileSync(path("a.ts"), "1");
    let running = 0;
    let overlapped = false;
    const twice = Promise.withResolvers<void>();
    await follower.follow({
      files: [path("a.ts")],
      debounceMs: 1,
      log: silent,
      async changed(reason) {
        overlapped ||= ++running > 1;
        reasons.push(reason);
        if (reasons.length === 1) {
          writeFileSync(path("a.ts"), "3");
          await new Promise((resolve) => setImmediate(resolve));
        } else twice.resolve();
        running--;
      },
    });
    writeFileSync(path("a.ts"), "2");
    await twice.promise;
    assert.equal(overlapped, false);
  });
});

describe("watch", () => {
  const plugin = (version: string, extra = "") =>
    `import { definePlugin } from "@tokenman/plugin-sdk";\nexport default definePlugin({ name: "dropped", version: "${version}", apiVersion: 1, setup() {} });\n${extra}`;
  const version = ({ kernel }: RunningKernel) =>
    kernel.status().plugins.find(({ name }) => name === "dropped")?.version;

  /** Does something and waits until as many more reloads have ended as it leads to. */
  async function reloaded(running: RunningKernel, act: () => void) {
    const before = running.kernel.status().lastReload?.at;
    const generation = running.kernel.status().generation;
    act();
    const ended = () => {
      const { lastReload } = running.kernel.status();
      return lastReload !== undefined && (lastReload.at !== before || lastReload.generation !== generation);
    };
    while (!ended()) await new Promise((resolve) => setTimeout(resolve, 5));
    return running.kernel.status().lastReload!;
  }

  test("loads a plugin that is dropped into the folder, its edits, and what mends a broken one", async () => {
    await using running = await runKernel([watch], "[watch]\ndebounce_ms = 5\n");
    const folder = join(running.folder, "plugins");
    const file = join(folder, "dropped.ts");
    mkdirSync(folder);
    assert.equal((await reloaded(running, () => writeFileSync(file, plugin("1.0.0")))).ok, true);
    assert.equal(version(running), "1.0.0");
    assert.equal((await reloaded(running, () => writeFileSync(file, plugin("2.0.0")))).ok, true);
    assert.equal(version(running), "2.0.0");
    const broken = await reloaded(running, () => writeFileSync(file, plugin("3.0.0", "const x = ;")));
    assert.equal(broken.ok, false);
    assert.match(broken.error ?? "", /dropped\.ts:3:11: TM_PLUGIN_COMPILE/);
    assert.equal(version(running), "2.0.0");
    assert.equal((await reloaded(running, () => writeFileSync(file, plugin("4.0.0")))).ok, true);
    assert.equal(version(running), "4.0.0");
    assert.equal((await reloaded(running, () => rmSync(file))).ok, true);
    assert.equal(version(running), undefined);
  });

  test("loads a changed config, and ends with the generation that the config takes it out of", async () => {
    await using running = await runKernel([watch], "[watch]\ndebounce_ms = 5\n");
    const text = readFileSync(running.configFile, "utf8");
    await reloaded(running, () =>
      writeFileSync(running.configFile, text.replace("[watch]", "[watch]\nenabled = false")),
    );
    assert.equal(running.kernel.status().plugins[0]?.state, "off");
    const { generation } = running.kernel.status();
    writeFileSync(running.configFile, text);
    assert.ok((await running.kernel.reload("by hand")).ok);
    assert.equal(running.kernel.status().generation, generation + 1, "nothing else reloaded it meanwhile");
    await reloaded(running, () => writeFileSync(running.configFile, `# again\n${text}`));
  });
});

import assert from "node:assert/strict";
import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { Sandbox, type Served } from "../cli/support/instance.ts";

/** An answer that is kept has what the plugins of its time made of it. */
const NO_CACHE = "[cache]\nenabled = false\n";

/** A plugin that marks replies with a header. */
function marker(name: string, mark: string): string {
  return `import { definePlugin, withHeader, z } from "@tokenman/plugin-sdk";
interface Config { readonly label: string }
export default definePlugin({
  name: "${name}",
  version: "1.0.0",
  apiVersion: 1,
  configSchema: z.strictObject({ label: z.string().default("") }),
  setup(ctx) {
    ctx.pipeline((config: Config, hooks) => {
      hooks.response.tap((reply) => {
        reply.headers = withHeader(reply.headers, "X-${name}", "${mark}" + config.label);
      });
    });
  },
});
`;
}

interface Ready {
  readonly status: string;
  readonly generation: number;
  readonly lastReload: { readonly ok: boolean; readonly error?: string; readonly at: number } | null;
}

class Instance {
  readonly #sandbox: Sandbox;
  readonly #served: Served;
  readonly #plugins: string;
  constructor(sandbox: Sandbox, served: Served) {
    this.#sandbox = sandbox;
    this.#served = served;
    this.#plugins = join(sandbox.folder, "plugins");
  }
  async ready(): Promise<Ready> {
    const ready = await fetch(`${this.#served.dashboard}/health/ready`);
    assert.equal(ready.status, 200);
    const { status } = (await ready.json()) as Ready;
    const whole = await fetch(`${this.#served.dashboard}/api/status`);
    const { generation, lastReload } = (await whole.json()) as Partial<Ready>;
    return { status, generation: generation!, lastReload: lastReload ?? null };
  }
  /**
   * Changes something on the disk, and resolves when a reload that follows from it has ended so that `shows` holds. One
   * change may lead to several: a file that is saved is seen beside its place before it is seen there.
   */
  async after(change: () => void, shows: (ready: Ready) => boolean | Promise<boolean>): Promise<Ready> {
    const before = (await this.ready()).lastReload?.at;
    change();
    for (;;) {
      const ready = await this.ready();
      if (ready.lastReload !== null && ready.lastReload.at !== before && (await shows(ready))) return ready;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  /** Whether replies have this mark of that plugin. */
  marked(plugin: string, mark: string | null): () => Promise<boolean> {
    return async () => (await this.ask()).get(`x-${plugin}`) === mark;
  }
  /** As an editor saves: beside, then in its place. */
  save(file: string, text: string): void {
    const path = join(this.#plugins, file);
    writeFileSync(`${path}.saving`, text, { mode: 0o644 });
    renameSync(`${path}.saving`, path);
  }
  remove(file: string): void {
    rmSync(join(this.#plugins, file));
  }
  config(more: string): void {
    this.#sandbox.config(`[plugins]\ndir = ${JSON.stringify(this.#plugins)}\n${more}`);
  }
  async ask(): Promise<Headers> {
    const reply = await fetch(`${this.#served.proxy}/v1/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ model: "mock", messages: [{ role: "user", content: "hello" }] }),
    });
    const answer = (await reply.json()) as { object?: string };
    assert.deepEqual([reply.status, answer.object], [200, "chat.completion"]);
    return reply.headers;
  }
}

async function start(t: {
  after(fn: () => Promise<void>): void;
}): Promise<Instance & Pick<Served, "logged" | "says"> & { sandbox: Sandbox }> {
  const sandbox = new Sandbox();
  t.after(() => sandbox[Symbol.asyncDispose]());
  const plugins = join(sandbox.folder, "plugins");
  mkdirSync(plugins, { mode: 0o755 });
  writeFileSync(join(plugins, "one.ts"), marker("one", "1"), { mode: 0o644 });
  sandbox.config(`[plugins]\ndir = ${JSON.stringify(plugins)}\n[watch]\ndebounce_ms = 10\n${NO_CACHE}`);
  const served = await sandbox.serve();
  return Object.assign(new Instance(sandbox, served), { logged: served.logged, says: served.says, sandbox });
}

const hasFailed = ({ lastReload }: Ready): boolean => lastReload?.ok === false;

describe("a running TokenMan", { timeout: 60_000 }, () => {
  it("takes in an edited plugin, a new one, a changed config and a removed file, while requests go on", async (t) => {
    const it = await start(t);
    assert.equal((await it.ask()).get("x-one"), "1");
    let asking = true;
    const seen = new Set<string | null>();
    const client = (async () => {
      while (asking) seen.add((await it.ask()).get("x-one"));
    })();

    assert.equal(
      (await it.after(() => it.save("one.ts", marker("one", "2")), it.marked("one", "2"))).lastReload?.ok,
      true,
    );
    assert.equal((await it.ask()).get("x-one"), "2");

    await it.after(() => it.save("two.ts", marker("two", "new")), it.marked("two", "new"));
    assert.equal((await it.ask()).get("x-two"), "new");

    const configured = '[watch]\ndebounce_ms = 10\n[plugins.configs.one]\nlabel = "-labelled"\n';
    await it.after(() => it.config(configured), it.marked("one", "2-labelled"));
    assert.equal((await it.ask()).get("x-one"), "2-labelled");

    await it.after(() => it.remove("two.ts"), it.marked("two", null));
    assert.equal((await it.ask()).get("x-two"), null);

    asking = false;
    await client;
    for (const mark of seen) assert.ok(mark === "1" || mark === "2" || mark === "2-labelled", String(mark));
    assert.match(it.logged(), /one\.ts changed, reloading/);
  });

  it("goes on with what it has where a version is broken, says why in three places, and takes the mended one", async (t) => {
    const it = await start(t);
    const broken = marker("one", "2").replace("setup(ctx) {", "setup(ctx) {\n    let twice, twice;");
    const { generation, lastReload, status } = await it.after(() => it.save("one.ts", broken), hasFailed);
    assert.deepEqual([status, generation, lastReload?.ok], ["ok", 1, false]);
    // The file with line and column, the code, and the line with a mark under what is wrong.
    const why =
      /one\.ts:\d+:\d+: TM_PLUGIN_COMPILE .*twice.*\n(?:.*\n)*> +\d+ \| +let twice, twice;\n +\| +\^/;
    assert.match(lastReload!.error!, why);
    // The log is a pipe of its own: its line may come after the status told of the failure.
    await it.says((stderr) =>
      stderr
        .split("\n")
        .slice(0, -1)
        .filter((line) => line.startsWith("{"))
        .map((line) => JSON.parse(line) as { msg?: string })
        .some(({ msg }) => msg?.includes("generation 1 stays") === true && why.test(msg)),
    );
    const told = await it.sandbox.run("reload");
    assert.equal(told.status, 78);
    assert.match(told.stdout, /^not reloaded: generation 1 still serves\n/);
    assert.match(told.stdout, why);
    assert.equal((await it.ask()).get("x-one"), "1");

    const mended = await it.after(() => it.save("one.ts", marker("one", "3")), it.marked("one", "3"));
    assert.deepEqual([mended.lastReload?.ok, mended.generation], [true, 2]);
    assert.equal((await it.ask()).get("x-one"), "3");
    const again = await it.sandbox.run("reload");
    assert.deepEqual([again.status, again.stdout.trim()], [0, "reloaded: generation 3 serves"]);
  });

  it("says where a setup threw, and what is wrong with a config", async (t) => {
    const it = await start(t);
    const throwing = marker("one", "2").replace(
      "setup(ctx) {",
      'setup(ctx) {\n    throw new Error("no luck");',
    );
    const thrown = await it.after(() => it.save("one.ts", throwing), hasFailed);
    assert.match(
      thrown.lastReload!.error!,
      /one\.ts:9:\d+: TM_PLUGIN_SETUP plugin "one": its setup failed: no luck\n(?:.*\n)*> +9 \|/,
    );
    await it.after(() => it.save("one.ts", marker("one", "2")), it.marked("one", "2"));
    const misconfigured = await it.after(() => it.config('[plugins.configs.one]\nlabl = "x"\n'), hasFailed);
    assert.match(misconfigured.lastReload!.error!, /tokenman\.toml:\d+:1: TM_CONFIG_UNKNOWN_KEY .*label/);
    const half = await it.after(
      () => it.config('[plugins.configs.one]\nlabel = "x'),
      (ready) => ready.lastReload?.error?.includes("TM_CONFIG_SYNTAX") === true,
    );
    assert.match(half.lastReload!.error!, /tokenman\.toml:\d+:\d+: TM_CONFIG_SYNTAX/);
    assert.equal((await it.ask()).get("x-one"), "2");
  });
});

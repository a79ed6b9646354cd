import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { definePlugin, type TokenmanErrors } from "@tokenman/plugin-sdk";
import { gate, steps, wholeReply } from "@tokenman/plugin-sdk/testkit";
import { bench, summary } from "../support/faulty.ts";
import { startTokenman, type Tokenman } from "../support/kernel.ts";
import { statusOf } from "../support/raw-client.ts";

const limits = { timeout: 30_000 };
const CHAT = JSON.stringify({ model: "mock", messages: [{ role: "user", content: "hi" }] });

async function ready({ proxy }: Tokenman): Promise<{
  status: string;
  generation: number;
  lastReload: { ok: boolean; error: string } | null;
}> {
  const reply = await fetch(`${proxy}/health/ready`);
  assert.equal(reply.status, 200, "the generation before serves");
  return (await reply.json()) as never;
}
/** Reloads, expects a refusal that says `why`, and that everything is served as before. */
async function refuses(tokenman: Tokenman, why: RegExp): Promise<void> {
  const event = await tokenman.reload("the test changed something");
  assert.equal(event.ok, false, String(event.error));
  const health = await ready(tokenman);
  assert.equal(health.status, "ok");
  assert.equal(health.generation, 1, "the first generation stays");
  assert.match(event.error ?? "", why);
  assert.match(health.lastReload?.error ?? "", /TM_[A-Z_]+$/);
  const reply = await fetch(`${tokenman.proxy}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: CHAT,
  });
  assert.equal(reply.status, 200);
}

const plugin = (setup: string): string =>
  `import { definePlugin } from "@tokenman/plugin-sdk";
export default definePlugin({ name: "third", version: "1.0.0", apiVersion: 1, ${setup} });
`;

test(
  "fault 31: a config file that is half-written, invalid or gone leaves the running generation",
  limits,
  async () => {
    await using tokenman = await startTokenman({ config: "[server]\nwrite_timeout = 60\n" });
    const write = (text: string) => writeFile(tokenman.configFile, text);
    await write("[server]\nwrite_timeout = 6");
    const { ok } = await tokenman.reload("a good one");
    assert.equal(ok, true);
    for (const [text, why] of [
      [
        "[server\nwrite_timeout",
        /TM_CONFIG_SYNTAX[\s\S]*tokenman\.toml:1|tokenman\.toml:1[\s\S]*TM_CONFIG_SYNTAX/,
      ],
      ["[server]\nwrite_timeout = ", /TM_CONFIG_SYNTAX/],
      [
        '[server]\nwrite_timeout = "soon"\nwrte_timeout = 1\n',
        /TM_CONFIG_INVALID[\s\S]*TM_CONFIG_UNKNOWN_KEY|TM_CONFIG_UNKNOWN_KEY[\s\S]*TM_CONFIG_INVALID/,
      ],
      ['[routing]\ndefault_provider = "nobody"\n', /nobody/],
      ["\0\x01\xff", /TM_CONFIG/],
    ] as const) {
      await write(text);
      const event = await tokenman.reload("a bad one");
      assert.equal(event.ok, false, text);
      assert.match(event.error ?? "", why);
      const health = await ready(tokenman);
      assert.equal(health.generation, 2);
      assert.equal(health.status, "ok");
      assert.match(health.lastReload?.error ?? "", /TM_[A-Z_]+$/);
    }
    await rm(tokenman.configFile);
    assert.equal((await tokenman.reload("it is gone")).ok, false);
    await write("");
    assert.equal((await tokenman.reload("mended")).ok, true);
    assert.equal((await ready(tokenman)).lastReload?.ok, true);
  },
);

test(
  "fault 31: a plugin that is missing, broken or throws in setup leaves the running generation",
  limits,
  async () => {
    await using tokenman = await startTokenman({ config: "" });
    const file = join(tokenman.configFile, "../third.ts");
    const order = (...more: string[]) =>
      writeFile(
        tokenman.configFile,
        `[plugins]\norder = ${JSON.stringify(["anthropic", "openai", "mock", "router", ...more])}\n`,
      );
    await order("./third.ts");
    await refuses(tokenman, /TM_PLUGIN_NOT_FOUND/);
    await order("no-such-plugin");
    await refuses(tokenman, /TM_PLUGIN_NOT_FOUND/);
    await order("./third.ts");
    for (const [source, why] of [
      [plugin('setup() { throw new Error("no luck") }'), /TM_PLUGIN_SETUP[\s\S]*no luck/],
      [
        plugin('async setup(ctx) { await ctx.effect("x", () => Promise.reject(new Error("no luck"))) }'),
        /no luck/,
      ],
      [plugin("timeouts: { setupMs: 50 }, setup: () => new Promise(() => {})"), /TM_PLUGIN_SETUP/],
      [plugin('setup(ctx) { ctx.pipeline(() => { throw new Error("no pipeline") }) }'), /no pipeline/],
      [
        plugin(
          'setup(ctx) { ctx.pipeline((_, hooks) => hooks.lifecycle.for("ready").tap(() => { throw new Error("not ready") })) }',
        ),
        /not ready/,
      ],
      [
        plugin("apiVersionn: 2, setup() {").slice(0, -9),
        /TM_PLUGIN_COMPILE[\s\S]*third\.ts:\d|third\.ts:\d[\s\S]*TM_PLUGIN_COMPILE/,
      ],
      ["throw new Error('at the top');", /TM_PLUGIN_LOAD[\s\S]*at the top/],
      ["export default 7;", /TM_PLUGIN_SHAPE/],
      ["", /TM_PLUGIN_SHAPE/],
    ] as const) {
      await writeFile(file, source, { mode: 0o600 });
      await refuses(tokenman, why);
    }
    await writeFile(file, plugin("setup() {}"), { mode: 0o600 });
    assert.equal((await tokenman.reload("mended")).ok, true);
  },
);

test(
  "fault 31: exchanges under way keep the generation they began with, whatever the reload brings",
  limits,
  async () => {
    await using b = await bench();
    const go = gate();
    b.upstream.next(steps(go.opened, wholeReply({ status: 200, body: '{"ok":1}' })));
    const client = await b.ask();
    await b.upstream.request(1);
    await writeFile(b.tokenman.configFile, "[broken");
    assert.equal((await b.tokenman.reload("bad")).ok, false);
    await writeFile(b.tokenman.configFile, "");
    assert.equal((await b.tokenman.reload("good, and without the provider")).ok, true);
    go.open();
    await client.until('{"ok":1}');
    assert.equal(summary(await b.outcomes.settled(1)), "answered 200");
    client.leave();
  },
);

test(
  "fault 32: a plugin that fails is a coded refusal in the dialect's shape, or is not there: by its policy",
  limits,
  async () => {
    const kinds = ["throws", "rejects", "returns nonsense", "hangs"] as const;
    const failing = (kind: (typeof kinds)[number]): unknown => {
      if (kind === "throws") throw new Error("secret internals");
      if (kind === "rejects") return Promise.reject(new Error("secret internals"));
      return kind === "hangs" ? new Promise(() => {}) : { status: "secret internals" };
    };
    for (const onError of ["open", "closed"] as const) {
      for (const hook of ["request", "beforeUpstream", "response"] as const) {
        let kind: (typeof kinds)[number] = "throws";
        const bad = definePlugin({
          name: "bad",
          version: "1.0.0",
          apiVersion: 1,
          onError,
          timeouts: { hookMs: 40 },
          setup: (ctx) => ctx.pipeline((_, hooks) => hooks[hook].tap((() => failing(kind)) as never)),
        });
        await using b = await bench({ plugins: [bad] });
        b.upstream.script(wholeReply({ status: 200, body: '{"ok":1}' }));
        for (const [index, each] of kinds.entries()) {
          kind = each;
          const client = await b.ask({ headers: ["Connection: close"] });
          await client.ended;
          const settled = await b.outcomes.settled(index + 1);
          const name = `${onError} ${hook} ${kind}`;
          assert.doesNotMatch(client.text, /secret/, name);
          if (onError === "open") {
            assert.equal(statusOf(client.text), 200, name);
            assert.equal(settled.outcome.kind, "answered", name);
          } else {
            assert.equal(statusOf(client.text), 500, name);
            assert.match(client.text, /"type":"error"[\s\S]*TM_PLUGIN_/, name);
            assert.equal(settled.outcome.kind, "refused", name);
          }
        }
        const { plugins } = b.tokenman.kernel.status();
        assert.equal(plugins.find((each) => each.name === "bad")?.failures, kinds.length, "each is counted");
        const told = b.tokenman.log.filter(({ message }) => message === "plugin failed");
        assert.deepEqual(
          told.map(({ facts }) => [facts["plugin"], facts["hook"], facts["policy"]]),
          kinds.map(() => ["bad", hook, onError]),
          "each is named",
        );
      }
    }
  },
);

test(
  "fault 36: plugin paths lead into the allowed folders only, through dots and links as well",
  limits,
  async (t) => {
    const outside = await mkdtemp(join(tmpdir(), "tokenman-outside-"));
    t.after(() => rm(outside, { recursive: true, force: true }));
    await writeFile(join(outside, "evil.ts"), plugin('setup() { process.emitWarning("loaded") }'), {
      mode: 0o600,
    });
    await mkdir(join(outside, "folder"));
    await writeFile(join(outside, "folder", "package.json"), '{"main":"../evil.ts"}');
    const tokenman = await startTokenman({ config: "" });
    await using _ = tokenman;
    const home = join(tokenman.configFile, "..");
    await symlink(join(outside, "evil.ts"), join(home, "link.ts"));
    await symlink(outside, join(home, "linked"));
    await mkdir(join(home, "sly"));
    await writeFile(
      join(home, "sly", "package.json"),
      JSON.stringify({ main: `../../${outside.split("/").at(-1)}/evil.ts` }),
    );
    for (const path of [
      `${outside}/evil.ts`,
      "./link.ts",
      "./linked/evil.ts",
      "./linked/folder",
      "./sly",
      `../${outside.split("/").at(-1)}/evil.ts`,
    ]) {
      await writeFile(
        tokenman.configFile,
        `[plugins]\norder = ["anthropic", "openai", "mock", "router", ${JSON.stringify(path)}]\n`,
      );
      await refuses(tokenman, /TM_PLUGIN_OUTSIDE/);
    }
    await assert.rejects(
      startTokenman({ config: `[plugins]\norder = [${JSON.stringify(`${outside}/evil.ts`)}]\n` }),
      (errors: TokenmanErrors) =>
        errors.errors.some(({ code }) => code === "TM_PLUGIN_OUTSIDE") && errors.exit === 78,
    );
  },
);

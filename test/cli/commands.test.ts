import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { Sandbox } from "./support/instance.ts";

const EXAMPLE = join(import.meta.dirname, "..", "..", "configs", "tokenman.example.toml");

describe("tokenman", { concurrency: 3 }, () => {
  test("starts in the background, tells its status, reloads, and stops", async () => {
    await using box = new Sandbox();
    const before = await box.run("status");
    assert.equal(before.status, 69);
    assert.match(before.stderr, /^tokenman: TM_NOT_RUNNING no TokenMan runs with /);
    assert.equal(JSON.parse((await box.run("status", "--json")).stdout).running, false);

    const started = await box.run("start");
    assert.equal(started.status, 0, started.stderr);
    const proxy = /proxy +(http:\S+)/.exec(started.stdout)?.[1];
    assert.equal((await fetch(`${proxy}/health`)).status, 200);

    const again = await box.run("start");
    assert.equal(again.status, 69);
    assert.match(again.stderr, /^tokenman: TM_ALREADY_RUNNING /);
    const inForeground = await box.run("start", "--foreground");
    assert.equal(inForeground.status, 69);
    assert.match(inForeground.stderr, /TM_ALREADY_RUNNING .*dashboard http:\/\/127\.0\.0\.1:\d+/);

    const status = JSON.parse((await box.run("status", "--json")).stdout);
    assert.deepEqual([status.running, status.generation, status.proxy], [true, 1, proxy]);
    const readable = await box.run("status");
    assert.match(readable.stdout, /^TokenMan \S+ is running \(pid \d+, for \d+ s\)\n {2}proxy {7}http/);
    assert.match(readable.stdout, /^ {2}last 24 h {3}0 requests, 0 answered with an error$/m);
    assert.ok(!readable.stdout.includes("\u001b"), "no colours in a pipe");
    assert.deepEqual(await box.run("stats", "--by", "model"), {
      status: 0,
      stdout: "no requests\n",
      stderr: "",
    });

    const reloaded = await box.run("reload");
    assert.deepEqual([reloaded.status, reloaded.stdout], [0, "reloaded: generation 2 serves\n"]);

    const stopped = await box.run("stop");
    assert.deepEqual([stopped.status, stopped.stdout], [0, `stopped (pid ${status.pid})\n`]);
    assert.equal((await box.run("stop")).status, 69);
    assert.equal(existsSync(join(box.dataDir, "tokenman.pid")), false);
  });

  test("whatever asks the instance or its data folder finds it though its config file was broken since", async () => {
    await using box = new Sandbox();
    await box.run("start");
    const { pid } = box.record;
    const file = readFileSync(box.configFile, "utf8");
    for (const broken of [
      `${file}[routing\ndefault_provider = "anthropic"\n`,
      `${file}log_level = "info\n`,
    ]) {
      writeFileSync(box.configFile, broken);
      const status = await box.run("status");
      assert.equal(status.status, 0, status.stderr);
      assert.match(status.stdout, new RegExp(`is running \\(pid ${pid},`));
      assert.match(status.stderr, /tokenman\.toml:5:\d+: TM_CONFIG_SYNTAX/);
      const reload = await box.run("reload");
      assert.equal(reload.status, 78, "a reload takes the file as it is");
      const restart = await box.run("restart");
      assert.equal(restart.status, 78, "and so does a restart");
      assert.match(
        restart.stderr,
        new RegExp(`TM_CONFIG_SYNTAX[\\s\\S]*not restarted: pid ${pid} serves on\n$`),
      );
      for (const [args, said] of [
        [["stats"], /^requests {2}0,/],
        [["cache", "stats"], /^answered /],
        [["ledger", "verify"], /is sound/],
        [["route", "mock"], /mock/],
      ] as const) {
        const { status, stdout, stderr } = await box.run(...args);
        assert.equal(status, 0, stderr);
        assert.match(stdout, said);
        assert.match(
          stderr,
          /TM_CONFIG_SYNTAX[\s\S]*the instance that runs with this file was found all the same\n$/,
        );
      }
    }
    const stopped = await box.run("stop");
    assert.deepEqual([stopped.status, stopped.stdout], [0, `stopped (pid ${pid})\n`]);
    assert.match(stopped.stderr, /TM_CONFIG_SYNTAX/);
    const again = await box.run("stop");
    assert.deepEqual([again.status, /TM_NOT_RUNNING/.test(again.stderr)], [69, true], again.stderr);
    const ledger = await box.run("ledger", "verify");
    assert.equal(ledger.status, 0, ledger.stderr);
    assert.match(ledger.stderr, /TM_CONFIG_SYNTAX[\s\S]*data was looked at all the same\n$/);
  });

  test("a key that is wrong in another section does not concern them, one that may mean another instance does", async () => {
    await using box = new Sandbox();
    await box.run("start");
    box.config("[watch]\ndebounce = 3\n");
    for (const args of [["stats"], ["cache", "stats"], ["ledger", "verify"], ["requests"]]) {
      const { status, stderr } = await box.run(...args);
      assert.deepEqual([status, stderr], [0, ""]);
    }
    const restart = await box.run("restart");
    assert.equal(restart.status, 78);
    assert.match(restart.stderr, /TM_CONFIG_UNKNOWN_KEY[\s\S]*not restarted: pid \d+ serves on/);
    box.config('data_dri = "/somewhere/else"\n');
    const prune = await box.run("ledger", "prune", "--older-than", "1d");
    assert.deepEqual([prune.status, /TM_CONFIG_UNKNOWN_KEY/.test(prune.stderr)], [78, true]);
    writeFileSync(box.configFile, `[server\ndata_dir = ${JSON.stringify(box.dataDir)}\n`);
    assert.equal((await box.run("ledger", "verify")).status, 78, "nobody knows which folder is meant");
    box.config("");
  });

  test("reload says why the new generation was refused, and exits with 78", async () => {
    await using box = new Sandbox("[watch]\nenabled = false\n");
    const served = await box.serve();
    box.config("[watch]\nenabled = false\ndebounce = 3\n");
    const { status, stdout } = await box.run("reload");
    assert.equal(status, 78);
    assert.match(
      stdout,
      /^not reloaded: generation 1 still serves\n.*tokenman\.toml:7:1: TM_CONFIG_UNKNOWN_KEY .*debounce_ms/,
    );
    assert.match(stdout, /> 7 \| debounce = 3/);
    const json = JSON.parse((await box.run("reload", "--json")).stdout);
    assert.equal(json.ok, false);
    served.child.kill("SIGTERM");
    assert.equal((await served.ended).status, 0);
  });

  test("refuses a config with all of its problems, starts nothing, and exits with 78", async () => {
    await using box = new Sandbox('log_levle = "info"\n[cache]\nenabled = 3\n[nothing]\nx = 1\n');
    for (const args of [["start"], ["start", "--foreground"], ["plugins"]]) {
      const { status, stderr, stdout } = await box.run(...args);
      assert.equal(status, 78, stderr);
      assert.equal(stdout, "");
      assert.match(stderr, /tokenman\.toml:5:1: TM_CONFIG_UNKNOWN_KEY .*log_level/);
      assert.match(stderr, /tokenman\.toml:7:11: TM_CONFIG_INVALID .*expected/);
      assert.match(stderr, /tokenman\.toml:8:2: TM_CONFIG_UNKNOWN_KEY/);
      assert.match(stderr, /\n3 problems\n$/);
      assert.equal(existsSync(join(box.dataDir, "tokenman.pid")), false);
    }
  });

  test("tells problems of schemas, of routes, of the list of plugins and of their services all at once, each at its line", async () => {
    await using box = new Sandbox(`log_levle = "info"
[providers.g]
api_base = "http://127.0.0.1:1"
format = "gopher"
timeout = "x"
[routing]
default_provider = "nobody"
[routing.model_map]
a = "elsewhere/x"
[plugins]
order = [
  "./needy.ts",
  "nothing-here",
]
`);
    writeFileSync(
      join(box.folder, "needy.ts"),
      `import { definePlugin, service } from "@tokenman/plugin-sdk";
      const needs = { it: service("unheard-of") };
      export default definePlugin({ name: "needy", version: "1.0.0", apiVersion: 1, contributes: {}, needs, setup() {} });
      `,
    );
    const { status, stderr } = await box.run("start", "--foreground");
    assert.equal(status, 78, stderr);
    const told = [...stderr.matchAll(/^.*tokenman\.toml:(\d+):\d+: (TM_\w+) (\S+)/gm)].map(
      ([, line, code, about]) => `${line} ${code} ${about}`,
    );
    assert.deepEqual(told.sort(), [
      "11 TM_CONFIG_INVALID routing.default_provider:",
      '13 TM_CONFIG_INVALID routing.model_map."a":',
      "16 TM_SERVICE_MISSING plugin",
      "17 TM_PLUGIN_NOT_FOUND no",
      "5 TM_CONFIG_UNKNOWN_KEY server.log_levle:",
      "8 TM_CONFIG_INVALID providers.g.format:",
      "9 TM_CONFIG_INVALID providers.g.timeout:",
    ]);
    assert.match(stderr, /\n7 problems\n$/);
    assert.equal(existsSync(join(box.dataDir, "ledger.db")), false);
  });

  test("says which ports other programs have, exits with 69, and has set nothing up", async () => {
    await using first = new Sandbox();
    const { proxy, dashboard } = await first.serve();
    const [port, other] = [proxy, dashboard].map((url) => new URL(url).port);
    await using second = new Sandbox();
    writeFileSync(
      second.configFile,
      `[server]\nproxy_port = ${port}\ndashboard_port = ${other}\ndata_dir = ${JSON.stringify(second.dataDir)}\n`,
    );
    for (const args of [["start"], ["start", "--foreground"]]) {
      const { status, stderr } = await second.run(...args);
      assert.equal(status, 69);
      assert.match(stderr, new RegExp(`TM_PORT_IN_USE .*:${port} `));
      assert.match(stderr, new RegExp(`TM_PORT_IN_USE .*:${other} `));
    }
    assert.equal(existsSync(join(second.dataDir, "ledger.db")), false);
  });

  test("plugins shows what is loaded and what is not, as text, as JSON, and explained", async () => {
    await using box = new Sandbox('[projects.web]\ndisable = ["access-log"]\n');
    const { status, stdout } = await box.run("plugins", "--plugins", "-watch");
    assert.equal(status, 0);
    assert.match(stdout, /^access-log +0\.1\.0 +built in \(the default order\)$/m);
    assert.match(stdout, /^watch +off +left out by --plugins -watch$/m);
    assert.match(
      (await box.run("plugins", "--plugins", "none")).stdout,
      /^access-log +off +not named in --plugins$/m,
    );
    const json = JSON.parse((await box.run("plugins", "--json", "--project", "web")).stdout);
    assert.deepEqual([json.project, json.known], ["web", true]);
    const off = json.off.find(({ plugin }: { plugin: string }) => plugin === "access-log");
    assert.equal(off.reason, "[projects.web] disable names it");
    assert.match((await box.run("plugins", "--explain", "--project", "web")).stdout, /^Project web, /);
    assert.equal(existsSync(join(box.dataDir, "tokenman.pid")), false);
  });

  test("project lets an instance that watches the file reload by itself: one edit is one reload", async () => {
    await using box = new Sandbox();
    const served = await box.serve();
    for (const [action, generation] of [
      ["disable", 2],
      ["enable", 3],
    ] as const) {
      const { stdout } = await box.run("project", "web", action, "access-log");
      assert.match(stdout, new RegExp(`reloaded: generation ${generation} serves\n$`));
    }
    const reloads = served.logged().match(/"msg":"reloaded"/g) ?? [];
    assert.equal(reloads.length, 2);
    assert.doesNotMatch(served.logged(), /"reason":"(?!tokenman\.toml changed")[^"]*","msg":"reloaded"/);
  });

  test("project edits the config file in place, keeps its comments, and lets the instance reload", async () => {
    await using box = new Sandbox("# a comment\n");
    const served = await box.serve("--plugins", "access-log");
    const disabled = await box.run("project", "web", "disable", "access-log");
    assert.equal(disabled.status, 0, disabled.stderr);
    assert.match(
      disabled.stdout,
      /^access-log is off for project web \(.*\)\nreloaded: generation 2 serves\n$/,
    );
    const text = readFileSync(box.configFile, "utf8");
    assert.match(text, /# a comment\n[\s\S]*\[projects\.web\]\ndisable = \["access-log"\]/);
    assert.match(
      (await box.run("project", "web", "disable", "access-log")).stdout,
      /^access-log is off for project web already\n$/,
    );
    assert.match((await box.run("project", "web", "enable", "access-log")).stdout, /is on for project web/);
    assert.doesNotMatch(readFileSync(box.configFile, "utf8"), /"access-log"/);
    served.child.kill("SIGTERM");
    await served.ended;
  });

  test("project keeps a config that is a symbolic link one, and its mode", async () => {
    await using box = new Sandbox();
    const real = join(box.folder, "real.toml");
    writeFileSync(real, readFileSync(box.configFile), { mode: 0o640 });
    const link = join(box.folder, "link.toml");
    symlinkSync(real, link);
    const { status, stderr } = await box.runBare("project", "web", "disable", "watch", "--config", link);
    assert.equal(status, 0, stderr);
    assert.match(readFileSync(real, "utf8"), /disable = \["watch"\]/);
    assert.equal(statSync(real).mode & 0o777, 0o640);
    assert.equal(readFileSync(link, "utf8"), readFileSync(real, "utf8"));
  });

  test("project refuses what it does not know", async () => {
    await using box = new Sandbox();
    const cases: [string[], RegExp][] = [
      [["web", "disable", "acess-log"], /no plugin named "acess-log" is loaded; did you mean "access-log"\?/],
      [["web", "remove", "watch"], /expected "enable" or "disable"/],
      [["no/name", "disable", "watch"], /expected a project name/],
      [["web", "disable", "router"], /router cannot be disabled, it is always on: .* these can: .*cache/],
    ];
    for (const [args, message] of cases) {
      const { status, stderr } = await box.run("project", ...args);
      assert.equal(status, 64);
      assert.match(stderr, message);
    }
  });

  test("init-config writes the example where the config is looked for, and does not overwrite it unasked", async () => {
    await using box = new Sandbox();
    const home = join(box.folder, ".tokenman", "tokenman.toml");
    const first = await box.runBare("init-config");
    assert.deepEqual([first.status, first.stdout], [0, `wrote ${home}\n`]);
    assert.equal(readFileSync(home, "utf8"), readFileSync(EXAMPLE, "utf8"));
    assert.equal(statSync(home).mode & 0o777, 0o600);
    assert.equal((await box.runBare("plugins")).status, 0, "it loads as it is");

    writeFileSync(home, "# mine\n");
    const second = await box.runBare("init-config");
    assert.equal(second.status, 73);
    assert.match(second.stderr, /exists already/);
    assert.equal(readFileSync(home, "utf8"), "# mine\n");
    assert.equal((await box.runBare("init-config", "--force")).status, 0);
    assert.equal(readFileSync(`${home}.bak`, "utf8"), "# mine\n");
    assert.equal(readFileSync(home, "utf8"), readFileSync(EXAMPLE, "utf8"));
  });

  test("shows the commands of plugins in its help, and runs them with their config", async () => {
    await using box = new Sandbox('[plugins.configs.greeter]\ngreeting = "Good day"\n');
    const dir = join(box.folder, ".tokenman", "plugins");
    mkdirSync(dir, { recursive: true });
    writeFileSync(
      join(dir, "greeter.ts"),
      `import { definePlugin, TokenmanError, z } from "@tokenman/plugin-sdk";
      export default definePlugin({
        name: "greeter", version: "1.0.0", apiVersion: 1,
        configSchema: z.strictObject({ greeting: z.string().default("Hello") }),
        commands: [{
          usage: "greet person <name>", description: "Greets somebody",
          options: [{ flag: "--loud", description: "Louder" }],
          examples: ["tokenman greet person Ada"],
          async run({ args, options, config, print, fetch }) {
            if (args.name === "nobody") throw new TokenmanError("TM_USAGE", "nobody is there");
            if (args.name === "instance") return (await fetch("/health")).status === 200 ? 3 : 4;
            const text = (config as { greeting: string }).greeting + ", " + args.name;
            print(options.loud === true ? text.toUpperCase() : text);
          },
        }],
        setup() { throw new Error("a command does not set its plugin up"); },
      });`,
    );
    const help = await box.runBare("--help", "--config", box.configFile);
    assert.match(help.stdout, /greet person <name> +Greets somebody/);
    assert.match((await box.run("greet", "person", "--help")).stdout, /--loud +Louder/);
    assert.deepEqual(await box.run("greet", "person", "Ada", "--loud"), {
      status: 0,
      stdout: "GOOD DAY, ADA\n",
      stderr: "",
    });
    const refused = await box.run("greet", "person", "nobody");
    assert.deepEqual([refused.status, refused.stderr], [64, "tokenman: TM_USAGE nobody is there\n"]);
    const alone = await box.run("greet", "person", "instance");
    assert.equal(alone.status, 69);
    assert.match(
      alone.stderr,
      /TM_NOT_RUNNING no TokenMan answers at http:\/\/127\.0\.0\.1:.*"tokenman start" starts one/,
    );
  });

  test("prints its version, and refuses what it does not understand with 64", async () => {
    await using box = new Sandbox();
    const { version } = JSON.parse(
      readFileSync(join(import.meta.dirname, "..", "..", "package.json"), "utf8"),
    );
    assert.equal((await box.runBare("--version")).stdout, `${version}\n`);
    assert.match((await box.runBare("version")).stdout, new RegExp(`^tokenman ${version} \\(node v\\d+`));
    const unknown = await box.runBare("strat");
    assert.deepEqual(
      [unknown.status, unknown.stderr],
      [64, 'tokenman: TM_USAGE unknown command "strat"; did you mean "start"?\n'],
    );
  });
});

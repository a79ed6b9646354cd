import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { TokenmanError } from "@tokenman/plugin-sdk";
import type { CliCommand, Invocation } from "../../cli/command.ts";
import { dispatch } from "../../cli/dispatch.ts";
import { help } from "../../cli/parse.ts";

/** Runs `argv` against a few commands; gives what was called with what, and what was printed. */
async function run(argv: readonly string[]) {
  const calls: { name: string; args: unknown; options: unknown }[] = [];
  const lines: string[] = [];
  const warnings: string[] = [];
  let askedPlugins = 0;
  const command = (name: string, rest: Partial<CliCommand> & { usage: string }): CliCommand => ({
    description: `does ${name}`,
    run: async ({ args, options }: Invocation) => {
      calls.push({ name, args, options });
      return name === "fails" ? 7 : undefined;
    },
    ...rest,
  });
  const code = await dispatch(argv, {
    program: "prog",
    version: "1.2.3",
    commands: [
      command("start", {
        usage: "start",
        options: [
          { flag: "--foreground", description: "f" },
          { flag: "-c, --config <file>", description: "c" },
          { flag: "--plugins <list>", description: "p" },
          { flag: "--timeout <seconds>", description: "t", default: 15 },
        ],
        examples: ["prog start --foreground"],
      }),
      command("project", { usage: "project <name> <action> [...plugins]" }),
      command("fails", { usage: "fails" }),
    ],
    pluginCommands: async () => {
      askedPlugins++;
      const commands = [
        command("keys set", {
          usage: "keys set <provider>",
          options: [{ flag: "--stdin", description: "s" }],
        }),
        command("keys list", { usage: "keys list" }),
        command("savings", { usage: "savings" }),
      ];
      return { commands, missing: "a file is broken" };
    },
    print: (line) => void lines.push(line),
    warn: (text) => void warnings.push(text),
  });
  return { code, calls, text: lines.join("\n"), warnings, askedPlugins };
}

function refusal(argv: readonly string[], message: RegExp) {
  return assert.rejects(run(argv), (error) => {
    assert.ok(error instanceof TokenmanError);
    assert.equal(error.code, "TM_USAGE");
    assert.equal(error.exit, 64);
    assert.match(error.message, message);
    return true;
  });
}

describe("dispatch", () => {
  test("runs a built-in command without asking the plugins, and returns its exit code", async () => {
    const { calls, askedPlugins } = await run(["start", "--foreground"]);
    assert.deepEqual(calls, [{ name: "start", args: {}, options: { foreground: true, timeout: 15 } }]);
    assert.equal(askedPlugins, 0);
    assert.equal((await run(["fails"])).code, 7);
  });

  test("finds a plugin's command of one word and of two, with options anywhere", async () => {
    assert.equal((await run(["savings"])).calls[0]?.name, "savings");
    for (const argv of [
      ["keys", "set", "anthropic", "--stdin"],
      ["--stdin", "keys", "set", "anthropic"],
      ["keys", "set", "--stdin", "anthropic"],
    ]) {
      const { calls } = await run(argv);
      assert.deepEqual(calls, [
        { name: "keys set", args: { provider: "anthropic" }, options: { stdin: true } },
      ]);
    }
  });

  test("gives option values as they were typed", async () => {
    const cases: [string[], string, string][] = [
      [["--plugins", "-history,+./c.ts"], "plugins", "-history,+./c.ts"],
      [["--plugins=007"], "plugins", "007"],
      [["--plugins", "0x10"], "plugins", "0x10"],
      [["--plugins", ""], "plugins", ""],
      [["--plugins="], "plugins", ""],
      [["--config", "a=b c"], "config", "a=b c"],
      [["-c", "x.toml"], "config", "x.toml"],
      [["--timeout", "1e3"], "timeout", "1e3"],
    ];
    for (const [argv, name, value] of cases) {
      const [call] = (await run(["start", ...argv])).calls;
      assert.ok(call !== undefined);
      assert.equal((call.options as Record<string, unknown>)[name], value, argv.join(" "));
    }
    assert.equal((await run(["--config", "start", "start"])).calls.length, 1);
  });

  test("names arguments, and collects variadic ones; after -- everything is an argument", async () => {
    const { calls } = await run(["project", "web", "disable", "a", "--", "--b"]);
    assert.deepEqual(calls[0]?.args, { name: "web", action: "disable", plugins: ["a", "--b"] });
  });

  test("refuses what it does not understand, with the nearest that it does", async () => {
    await refusal(["strat"], /^unknown command "strat"; did you mean "start"\?$/);
    await refusal(["xyzzy"], /^unknown command "xyzzy"; see "prog --help"$/);
    await refusal(["keys"], /^"keys" needs one more word; known: keys set, keys list$/);
    await refusal(["keys", "sett", "x"], /unknown command "keys sett"; known: keys set, keys list/);
    await refusal(["start", "--foregroud"], /^unknown option --foregroud; did you mean --foreground\?$/);
    await refusal(["start", "-x"], /^unknown option -x; see "prog start --help"$/);
    await refusal(["start", "--config"], /value is missing; see "prog start --help"/);
    await refusal(["start", "extra"], /^unused args: "extra"; see/);
    await refusal(["keys", "set"], /^missing required args for command "keys set <provider>"/);
    await refusal(["--config", "start", "strat"], /^unknown command "strat"; did you mean "start"\?$/);
    await refusal(["--nope"], /^unknown option --nope, and no command$/);
  });

  test("prints help with all commands, and that of one with its options and examples", async () => {
    for (const argv of [[], ["--help"], ["-h"], ["help"], ["--config", "start", "--help"]]) {
      const { text, code } = await run(argv);
      assert.equal(code, 0);
      for (const name of ["start", "project <name> <action>", "keys set <provider>", "savings"]) {
        assert.ok(text.includes(name), `${name} is missing in:\n${text}`);
      }
    }
    for (const argv of [
      ["start", "--help"],
      ["help", "start"],
      ["start", "-h", "--foreground"],
    ]) {
      const { text, calls } = await run(argv);
      assert.equal(calls.length, 0);
      assert.match(text, /^prog\/1\.2\.3\n\ndoes start\n\nUsage:\n {2}\$ prog start/);
      assert.match(text, /--config <file>/);
      assert.match(text, /Examples:\n {2}\$ prog start --foreground/);
    }
    assert.match((await run(["help", "keys", "set"])).text, /keys set <provider>[\s\S]*--stdin/);
  });

  test("breaks the lines of its help where a terminal ends", () => {
    const description = "says a thing at some length";
    const told = help("prog", "1", undefined, [{ usage: "say", description, run: async () => {} }], 28);
    assert.match(told, /\n {2}say {2}says a thing at some\n {7}length\n/);
  });

  test("prints the version", async () => {
    assert.equal((await run(["--version"])).text, "1.2.3");
    assert.equal((await run(["-v"])).text, "1.2.3");
  });
});

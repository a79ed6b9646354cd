import assert from "node:assert/strict";
import { test } from "node:test";
import { TokenmanError, TokenmanErrors } from "@tokenman/plugin-sdk";
import { setProjectPlugin } from "../../kernel/config/index.ts";

const disable = (text: string, plugin = "rules") => setProjectPlugin(text, "a", plugin, false);
const enable = (text: string, plugin = "rules", section?: string) =>
  setProjectPlugin(text, "a", plugin, true, section);

const DISABLING: readonly (readonly [what: string, before: string, after: string])[] = [
  ["an empty file", "", '[projects.a]\ndisable = ["rules"]\n'],
  [
    "a file without the project",
    "[server] # s\nproxy_port=1",
    '[server] # s\nproxy_port=1\n\n[projects.a]\ndisable = ["rules"]\n',
  ],
  [
    "a project without a list",
    "[projects.a] # n\n  x = 1\n",
    '[projects.a] # n\ndisable = ["rules"]\n  x = 1\n',
  ],
  [
    "a list on one line",
    '[projects.a]\ndisable = [ "cache" ] # why\n',
    '[projects.a]\ndisable = [ "cache", "rules" ] # why\n',
  ],
  ["an empty list", "[projects.a]\ndisable = []", '[projects.a]\ndisable = ["rules"]'],
  [
    "a list with a line for each",
    "[projects.a]\ndisable = [\n  'cache', # c\n  'pii' # d\n]\n",
    "[projects.a]\ndisable = [\n  'cache', # c\n  'pii', # d\n  \"rules\"\n]\n",
  ],
  [
    "a list with a line for each, commas and CRLF",
    '[projects.a]\r\ndisable = [\r\n\t"cache",\r\n]\r\n# end\r\n',
    '[projects.a]\r\ndisable = [\r\n\t"cache",\r\n\t"rules",\r\n]\r\n# end\r\n',
  ],
  [
    "a list with a comment only",
    "[projects.a]\ndisable = [ # none\n]\n",
    '[projects.a]\ndisable = ["rules" # none\n]\n',
  ],
  ["dotted keys", "projects.a.disable=[]\n[x]\n", 'projects.a.disable=["rules"]\n[x]\n'],
  [
    "a table of projects with dotted keys",
    "[projects]\n  a.cache.enabled = false # c\nb = {}\n",
    '[projects]\n  a.cache.enabled = false # c\n  a.disable = ["rules"]\nb = {}\n',
  ],
  [
    "an inline table",
    "projects.a = { cache.enabled = false }",
    'projects.a = { cache.enabled = false, disable = ["rules"] }',
  ],
  ["an inline table of projects", "projects = { b = {} }", 'projects = { b = {}, a.disable = ["rules"] }'],
  ["an empty inline table", "projects = { a = { } }", 'projects = { a = { disable = ["rules"] } }'],
  [
    "a project with sections only",
    "[projects.a.cache]\nenabled = false\n[projects.b]\n",
    '[projects.a.cache]\nenabled = false\n[projects.b]\n\n[projects.a]\ndisable = ["rules"]\n',
  ],
  [
    "a byte order mark",
    "\ufeff[projects.a]\ndisable = ['x']",
    "\ufeff[projects.a]\ndisable = ['x', \"rules\"]",
  ],
  ["quoted keys", '["projects" . "a"]\n"disable" = ["x"]', '["projects" . "a"]\n"disable" = ["x", "rules"]'],
];

for (const [what, before, after] of DISABLING) {
  test(`disabling a plugin changes nothing else: ${what}`, async () => {
    assert.equal(await disable(before), after);
    assert.equal(await disable(after), after, "twice is once");
    assert.equal(await enable(before), before, "what is not disabled stays");
  });
}

const ENABLING: readonly (readonly [what: string, before: string, after: string])[] = [
  ["the only one", '[projects.a]\ndisable = ["rules"] # r', "[projects.a]\ndisable = [] # r"],
  ["the first", '[projects.a]\ndisable = ["rules", "x"]', '[projects.a]\ndisable = ["x"]'],
  ["the last", '[projects.a]\ndisable = ["x", "rules"]', '[projects.a]\ndisable = ["x"]'],
  [
    "the last before a comma",
    '[projects.a]\ndisable = [ "x", "rules", ]',
    '[projects.a]\ndisable = [ "x",  ]',
  ],
  ["each one", "[projects.a]\ndisable = ['rules', \"rules\", 'x', 'rules']", "[projects.a]\ndisable = ['x']"],
  ["all of them", "[projects.a]\ndisable = ['rules', 'rules']", "[projects.a]\ndisable = []"],
  [
    "a line of its own, with its comment",
    '[projects.a]\ndisable = [\n  "x", # x\n  "rules", # r\n  "y"\n]',
    '[projects.a]\ndisable = [\n  "x", # x\n  "y"\n]',
  ],
  [
    "the last line",
    '[projects.a]\ndisable = [\n  "x", # x\n  "rules" # r\n]',
    '[projects.a]\ndisable = [\n  "x", # x\n]',
  ],
];

for (const [what, before, after] of ENABLING) {
  test(`enabling a plugin takes it from the list: ${what}`, async () => {
    assert.equal(await enable(before), after);
  });
}

test("a plugin that is off by default is switched on in its section's overlay", async () => {
  const on = (text: string) => enable(text, "history", "compression.history");
  assert.equal(await on(""), "[projects.a.compression.history]\nenabled = true\n");
  assert.equal(
    await on('[projects.a]\ndisable = ["history"]\n[projects.a.compression.history] # h\nwindow_size = 3\n'),
    "[projects.a]\ndisable = []\n[projects.a.compression.history] # h\nenabled = true\nwindow_size = 3\n",
  );
  assert.equal(
    await on("[projects.a.compression]\nhistory.enabled=false # off\n"),
    "[projects.a.compression]\nhistory.enabled=true # off\n",
  );
  const already = "[projects.a.compression]\nhistory = { enabled = true }\n";
  assert.equal(await on(already), already);
});

test("a project's name is quoted where TOML wants it", async () => {
  const once = await setProjectPlugin("", "v1.2", "x", false);
  assert.equal(once, '[projects."v1.2"]\ndisable = ["x"]\n');
  assert.equal(await setProjectPlugin(once, "v1.2", "x", true), '[projects."v1.2"]\ndisable = []\n');
});

test("what cannot be edited is refused with its reason", async () => {
  const refused = async (text: string, project = "a") => {
    try {
      await setProjectPlugin(text, project, "x", false);
    } catch (error) {
      if (error instanceof TokenmanErrors) return error.errors[0]!.code;
      if (error instanceof TokenmanError) return `${error.code} ${error.message}`;
      throw error;
    }
    throw new assert.AssertionError({ message: `not refused: ${text}` });
  };
  assert.match(await refused("", "a b"), /^TM_USAGE expected a project name/);
  assert.match(await refused("", "__proto__/.."), /^TM_USAGE/);
  assert.equal(
    await refused("projects = 3"),
    "TM_CONFIG_INVALID projects: expected a table, found another value",
  );
  assert.equal(
    await refused("[projects.a]\ndisable = 'x'"),
    "TM_CONFIG_INVALID projects.a.disable: expected a list of plugin names, found another value",
  );
  assert.equal(
    await refused("[[projects]]\na = 1"),
    "TM_CONFIG_INVALID projects: expected a table, found another value",
  );
  assert.equal(await refused("a = = 1"), "TM_CONFIG_SYNTAX");
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "@tokenman/plugin-sdk";
import { builtSections, routing, summaries, thirdParty, validate } from "./config-fixture.ts";

const TEXT = `
[security.pii]
action = "redact"
allow_list = ["a", "b"]
[routing.model_map]
x = "1"
y = "2"
[projects.work]
disable = ["cache"]
[projects.work.security.pii]
allow_list = ["c"]
[projects.work.routing.model_map]
y = "3"
z = "4"
[projects.same.security.pii]
action = "redact"
[projects.quiet]
compression.rules.enabled = false
`;

test("an overlay is laid on the section key by key, lists replaced, and the rest is shared", async () => {
  const { config, problems } = await validate(TEXT);
  assert.deepEqual(problems, []);
  assert.deepEqual(config.section("security.pii", "work"), { action: "redact", allow_list: ["c"] });
  assert.deepEqual(config.section("security.pii"), { action: "redact", allow_list: ["a", "b"] });
  const { model_map } = config.section("routing", "work") as { model_map: unknown };
  assert.deepEqual(model_map, { x: "1", y: "3", z: "4" });
  assert.equal(config.section("resilience", "work"), config.section("resilience"));
  assert.equal(config.section("server", "work"), config.server);
  assert.equal(config.enabled("compression.rules", "quiet"), false);
  assert.equal(config.enabled("compression.rules", "work"), true);
  assert.deepEqual(config.projects, ["work", "same", "quiet"]);
  assert.deepEqual([...config.disabled("work")], ["cache"]);
  assert.deepEqual([...config.disabled("quiet")], []);
});

test("a project the config does not name has the config of the project called default", async () => {
  const without = (await validate(TEXT)).config;
  assert.equal(without.section("security.pii", "nobody"), without.section("security.pii"));
  assert.equal(without.signature("nobody"), without.signature());
  const { config } = await validate(
    `${TEXT}[projects.default]\ndisable = ["pii"]\nsecurity.pii.action = "log"\n`,
  );
  assert.deepEqual(config.section("security.pii", "nobody"), { action: "log", allow_list: ["a", "b"] });
  assert.deepEqual([...config.disabled("nobody")], ["pii"]);
  assert.equal(config.signature("nobody"), config.signature("default"));
  assert.deepEqual(config.section("security.pii"), { action: "redact", allow_list: ["a", "b"] });
  assert.deepEqual(config.section("security.pii", "same"), { action: "redact", allow_list: ["a", "b"] });
});

test("signatures are equal exactly where the effective config is", async () => {
  const { config } = await validate(TEXT);
  assert.equal(config.signature("same"), config.signature("default"));
  const distinct = new Set(["default", "work", "quiet"].map((project) => config.signature(project)));
  assert.equal(distinct.size, 3);

  const other = async (text: string) => (await validate(text)).config.signature("p");
  const base = await other("");
  assert.equal(await other("[projects.p]\ndisable = []"), base);
  assert.equal(
    await other("[projects.p.cache]\nignore_fields = []\nenabled = true"),
    base,
    "the default, in words",
  );
  assert.equal(await other("[server]\nproxy_port = 1"), base, "what no project can differ in does not count");
  assert.notEqual(await other("[projects.p.cache]\nenabled = false"), base);
  assert.notEqual(await other('[projects.p]\ndisable = ["cache"]'), base);
  assert.notEqual(await other("[projects.p.resilience]\nretry_max_attempts = 1"), base);
  assert.equal(
    await other('[projects.p]\ndisable = ["a", "b"]'),
    await other('[projects.p]\ndisable = ["b", "a"]'),
  );
  assert.equal(
    await other('[projects.p.routing.model_map]\na = "1"\nb = "2"'),
    await other('[projects.p.routing.model_map]\nb = "2"\na = "1"'),
  );
});

test("signatures tell values apart that a schema turns into objects", async () => {
  const schema = z.strictObject({
    pattern: z
      .string()
      .default("a")
      .transform((text) => new RegExp(text)),
  });
  const sections = [thirdParty("match", schema)];
  const sign = async (pattern: string) =>
    (
      await validate(`[projects.p.plugins.configs.match]\npattern = "${pattern}"`, { sections })
    ).config.signature("p");
  assert.notEqual(await sign("x"), await sign("y"));
  assert.equal(await sign("x"), await sign("x"));
});

test("what cannot differ between projects, and what nobody knows, is refused in an overlay", async () => {
  const validation = await validate(
    `[projects.a]
disable = "cache"
limits = 1
[projects.a.server]
proxy_port = 1
[projects.a.tracing]
enabled = true
[projects.a.security.pii]
action = "nope"
actoin = "log"
[projects.a.securty.pii]
[projects.a.security.pi]
[projects."a/b"]
[projects.".."]
[projects.a.plugins]
order = []
[projects.a.plugins.configs.mine]
x = 2
`,
    {
      sections: [
        routing,
        ...builtSections.filter((spec) => spec.owner === "pii" || spec.owner === "tracing"),
        thirdParty("mine", z.strictObject({ x: z.int() }), { loaded: false }),
      ],
    },
  );
  const same = (path: string) =>
    `${path} is the same for all projects; expected disable or one of routing, security.pii, plugins.configs.mine`;
  assert.deepEqual(summaries(validation), [
    "2:11 TM_CONFIG_INVALID projects.a.disable: expected a list of plugin names, found another value",
    "3:1 TM_CONFIG_UNKNOWN_KEY projects.a.limits: unknown key; known here: disable, routing, security, plugins",
    `4:13 TM_CONFIG_INVALID projects.a.server: ${same("server")}`,
    `6:13 TM_CONFIG_INVALID projects.a.tracing: ${same("tracing")}`,
    '9:10 TM_CONFIG_INVALID projects.a.security.pii.action: expected one of "redact", "hash", "log", "block", found "nope"',
    "10:1 TM_CONFIG_UNKNOWN_KEY projects.a.security.pii.actoin: unknown key, did you mean action?",
    "11:13 TM_CONFIG_UNKNOWN_KEY projects.a.securty: unknown key, did you mean security?",
    "12:22 TM_CONFIG_UNKNOWN_KEY projects.a.security.pi: unknown key, did you mean pii?",
    '13:11 TM_CONFIG_INVALID projects."a/b": expected a project name: 1 to 64 letters, digits, _, . or -',
    '14:11 TM_CONFIG_INVALID projects."..": expected a project name: 1 to 64 letters, digits, _, . or -',
    `16:1 TM_CONFIG_INVALID projects.a.plugins.order: ${same("plugins.order")}`,
  ]);
});

test("a problem of the base section is not told again for each project", async () => {
  const text = `[security.pii]
action = "nope"
[projects.a.security.pii]
allow_list = ["x"]
[projects.b.security.pii]
action = "nah"
`;
  assert.deepEqual(summaries(await validate(text)), [
    '2:10 TM_CONFIG_INVALID security.pii.action: expected one of "redact", "hash", "log", "block", found "nope"',
    '6:10 TM_CONFIG_INVALID projects.b.security.pii.action: expected one of "redact", "hash", "log", "block", found "nah"',
  ]);
});

test("a rule between two keys that only an overlay breaks is told with the project's name", async () => {
  const schema = z
    .strictObject({ low: z.int().default(1), high: z.int().default(9) })
    .refine((value) => value.low <= value.high, {
      path: ["high"],
      error: "expected high to be at least low",
    });
  const { problems } = await validate(
    "[plugins.configs.range]\nhigh = 5\n[projects.p.plugins.configs.range]\nlow = 7\n",
    { sections: [thirdParty("range", schema)] },
  );
  assert.deepEqual(
    problems.map(({ message, place }) => `${place!.line}:${place!.column} ${message}`),
    [
      "2:8 plugins.configs.range.high: expected high to be at least low, found 5 (with what project p overlays)",
    ],
  );
});

test("misspelt plugin names in disable are noticed where the plugins are known", async () => {
  const text = '[projects.a]\ndisable = ["cahce", "pii", "access-log"]\n';
  assert.deepEqual((await validate(text)).warnings, []);
  const { warnings } = await validate(text, { validate: { plugins: ["access-log"] } });
  assert.deepEqual(warnings, ["projects.a.disable: there is no plugin cahce, did you mean cache?"]);
});

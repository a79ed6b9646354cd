import assert from "node:assert/strict";
import { test } from "node:test";
import { type StandardSchema, z } from "@tokenman/plugin-sdk";
import { allSections, builtSections, summaries, thirdParty, validate } from "./config-fixture.ts";

test("settings of features to come are named in one warning", async () => {
  const { problems, warnings } = await validate(
    "[cache]\nenabled = true\n[tracing]\n[security.pii]\naction = 'log'\n[projects.a.security.injection]\nenabled = false\n",
    { sections: allSections },
  );
  assert.deepEqual(problems, []);
  assert.deepEqual(warnings, [
    "these settings are of features that do not exist yet and have no effect: cache, security.pii, projects.a.security.injection",
  ]);
});

test("where one of a section's plugins exists, only the keys of the other are named", async () => {
  const sections = builtSections.map((spec) =>
    spec.owner === "breaker" ? { ...spec, planned: true, loaded: false } : spec,
  );
  const both = await validate("[resilience]\nretry_max_attempts = 1\ncb_failure_threshold = 2\n", {
    sections,
  });
  assert.deepEqual(both.warnings, [
    "these settings are of features that do not exist yet and have no effect: resilience (cb_failure_threshold)",
  ]);
  assert.deepEqual((await validate("[resilience]\nretry_max_attempts = 1\n", { sections })).warnings, []);
});

test("a guard that is switched on in so many words must exist and be loaded", async () => {
  const missing = await validate(
    "[security.pii]\nenabled = true\n[security.budget]\nenabled = false\n[projects.a.security.injection]\nenabled = true\n",
    { sections: allSections, env: { TOKENMAN_SECURITY_RATE_LIMIT_ENABLED: "true" } },
  );
  assert.deepEqual(
    missing.problems.map(({ code, place }) => `${code} ${place!.line ?? place!.file}`),
    ["TM_GUARD_MISSING 2", "TM_GUARD_MISSING 6", "TM_GUARD_MISSING TOKENMAN_SECURITY_RATE_LIMIT_ENABLED"],
  );
  assert.match(missing.problems[0]!.message, /^security\.pii\.enabled: .*no such feature yet/);

  const unloaded = builtSections.map((spec) => (spec.owner === "pii" ? { ...spec, loaded: false } : spec));
  const off = await validate("[security.pii]\nenabled = true\n", { sections: unloaded });
  assert.match(off.problems[0]!.message, /the plugin pii is not loaded/);
  const unsaid = await validate('[security.pii]\naction = "block"\n', { sections: unloaded });
  assert.deepEqual(unsaid.problems, []);
  assert.deepEqual(unsaid.warnings, [
    "security.pii is set, but the plugin pii is not loaded: it guards nothing",
  ]);
  assert.deepEqual((await validate("[security.pii]\nenabled = true\n")).problems, []);
});

test("a section whose plugin is not loaded is validated all the same", async () => {
  const sections = builtSections.map((spec) => ({ ...spec, loaded: false }));
  assert.deepEqual(summaries(await validate("[tracing]\nsample_rate = 2\nsample = 1\n", { sections })), [
    "2:15 TM_CONFIG_INVALID tracing.sample_rate: expected a number from 0 to 1, found 2",
    "3:1 TM_CONFIG_UNKNOWN_KEY tracing.sample: unknown key; known here: exporter, endpoint, service_name, sample_rate, insecure, enabled",
  ]);
});

test("`enabled` is taken for every plugin, and reaches only schemas that know it", async () => {
  const sections = [
    thirdParty("plain", z.strictObject({ x: z.int().default(1) })),
    thirdParty("own", z.strictObject({ enabled: z.boolean().default(false) })),
    thirdParty("none", undefined),
    thirdParty("loose", z.object({ x: z.int().default(1) }), { enabledByDefault: false }),
  ];
  const written = ["plain", "none", "loose"]
    .map((name) => `[plugins.configs.${name}]\nenabled = false\n`)
    .join("");
  const { config, problems } = await validate(written, { sections });
  assert.deepEqual(problems, []);
  assert.deepEqual(config.section("plugins.configs.plain"), { x: 1 });
  assert.deepEqual(config.section("plugins.configs.own"), { enabled: false });
  assert.equal(config.enabled("plugins.configs.plain"), false);
  assert.equal(config.enabled("plugins.configs.own"), false);
  assert.equal(config.enabled("plugins.configs.none"), false);
  const silent = (await validate("", { sections })).config;
  assert.equal(silent.enabled("plugins.configs.plain"), true);
  assert.equal(silent.enabled("plugins.configs.loose"), false);
  assert.deepEqual(
    summaries(
      await validate("[plugins.configs.none]\nx = 1\n[plugins.configs.loose]\ncolour = 1", { sections }),
    ),
    [
      "2:1 TM_CONFIG_UNKNOWN_KEY plugins.configs.none.x: unknown key; known here: enabled",
      "4:1 TM_CONFIG_UNKNOWN_KEY plugins.configs.loose.colour: unknown key; known here: x, enabled",
    ],
  );
});

test("what a loaded plugin needs and nobody wrote is missing; not so where it is off or not loaded", async () => {
  const schema = z.strictObject({ url: z.string() });
  const check = async (text: string, loaded: boolean) =>
    summaries(await validate(text, { sections: [thirdParty("hook", schema, { loaded })] }));
  const missing = "TM_CONFIG_INVALID plugins.configs.hook.url: expected text, found nothing";
  assert.deepEqual(await check("", true), [`file ${missing}`]);
  assert.deepEqual(await check("[plugins.configs.hook]\nenabled = true", true), [`1:18 ${missing}`]);
  assert.deepEqual(await check("[plugins.configs.hook]\nenabled = false", true), []);
  assert.deepEqual(await check("", false), []);
  assert.deepEqual(await check("[plugins.configs.hook]\nenabled = true", false), [`1:18 ${missing}`]);
});

test("settings of a plugin nobody loaded are kept and warned about", async () => {
  const { config, problems, warnings } = await validate("[plugins.configs.ghost]\nx = { y = 1 }\n");
  assert.deepEqual(problems, []);
  assert.deepEqual(config.plugins.configs, { ghost: { x: { y: 1 } } });
  assert.deepEqual(warnings, [
    "plugins.configs.ghost: no plugin of that name is loaded, so its settings are not checked",
  ]);
});

test("schemas of other libraries validate, with their own words and the exact place", async () => {
  const schema: StandardSchema = {
    "~standard": {
      version: 1,
      vendor: "own",
      validate(value) {
        const { colour, ...rest } = value as Record<string, unknown>;
        const extra = Object.keys(rest);
        if (extra.length > 0)
          return { issues: [{ message: `${extra[0]} is not wanted`, path: [extra[0]!] }] };
        if (colour !== "red") return { issues: [{ message: "must be red", path: ["colour"] }] };
        return Promise.resolve({ value: { colour } });
      },
    },
  };
  const sections = [thirdParty("paint", schema)];
  const good = await validate('[plugins.configs.paint]\nenabled = false\ncolour = "red"', { sections });
  assert.deepEqual(good.problems, []);
  assert.deepEqual(good.config.section("plugins.configs.paint"), { colour: "red" });
  assert.equal(good.config.enabled("plugins.configs.paint"), false);
  assert.deepEqual(summaries(await validate('[plugins.configs.paint]\ncolour = "blue"', { sections })), [
    '2:10 TM_CONFIG_INVALID plugins.configs.paint.colour: must be red (found "blue")',
  ]);
});

test("a schema that throws is a problem of its plugin", async () => {
  const schema = z.strictObject({
    x: z.int().transform((): number => {
      throw new Error("boom");
    }),
  });
  const { problems } = await validate("[plugins.configs.bad]\nx = 1", {
    sections: [thirdParty("bad", schema)],
  });
  assert.deepEqual(
    problems.map(({ code, plugin, message }) => [code, plugin, message]),
    [["TM_CONFIG_INVALID", "bad", "plugins.configs.bad: the schema failed: boom (found a table)"]],
  );
});

test("a section may nest in another one", async () => {
  const sections = [
    { ...thirdParty("x", z.strictObject({ holdout: z.number().default(0) })), path: "compression" },
    { ...thirdParty("y", z.strictObject({ n: z.int().default(1) })), path: "compression.rules" },
  ];
  const { config, problems } = await validate("[compression]\nholdout = 0.5\nrules.n = 2\n", { sections });
  assert.deepEqual(problems, []);
  assert.deepEqual(config.section("compression"), { holdout: 0.5 });
  assert.deepEqual(config.section("compression.rules"), { n: 2 });
});

test("freezing a config leaves a schema's own defaults alone", async () => {
  const shared = { list: [1] };
  const sections = [thirdParty("p", z.strictObject({ x: z.any().default(shared) }))];
  assert.deepEqual((await validate("", { sections })).config.section("plugins.configs.p"), {
    x: { list: [1] },
  });
  shared.list.push(2);
  assert.deepEqual(shared, { list: [1, 2] });
});

test("paths that a plugin's schema marks are made absolute", async () => {
  const path = z.string().meta({ path: true });
  const sections = [
    thirdParty("p", z.strictObject({ a: path.default("~/x"), b: z.array(path), c: path.default("") })),
  ];
  const { config } = await validate('[plugins.configs.p]\nb = ["/y", "z", "~"]', { sections });
  assert.deepEqual(config.section("plugins.configs.p"), {
    a: "/home/ada/x",
    b: ["/y", "/etc/tokenman/z", "/home/ada"],
    c: "",
  });
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { z } from "@tokenman/plugin-sdk";
import { configExample, type SectionSpec } from "../../kernel/config/index.ts";
import { allSections, builtSections, thirdParty, validate } from "./config-fixture.ts";

const rich: SectionSpec = thirdParty(
  "rich",
  z
    .strictObject({
      text: z.string().default('a "quoted" \\ text\u0007').describe("A text."),
      ratio: z.number().min(0).max(1).default(0.25),
      none: z.string().optional().describe("Nothing by default."),
      nested: z
        .strictObject({ depth: z.int().default(3), list: z.array(z.int()).default([1, 2]) })
        .prefault({})
        .describe("A table in it."),
      hosts: z
        .record(z.string(), z.strictObject({ port: z.int().default(1) }))
        .default({ main: { port: 5 } }),
      "odd key": z.boolean().default(true),
    })
    .describe("A plugin's settings."),
);

/** Every default written out: all settings uncommented but those that have none, and the examples called NAME. */
function uncomment(example: string): string {
  return example
    .split("\n\n")
    .map((block) => (/^#\[.*\bNAME\b/m.test(block) ? block : block.replace(/^#(?! )(?!.*no default)/gm, "")))
    .join("\n\n");
}

for (const [what, sections] of [
  ["planned sections", allSections],
  ["built sections", [...builtSections, rich]],
] as const) {
  test(`the example loads without a word and changes nothing: ${what}`, async () => {
    const example = await validate(configExample(sections), { sections });
    assert.deepEqual([example.problems, example.warnings], [[], []]);
    const nothing = (await validate("", { sections })).config;
    assert.deepEqual(example.config.redacted(), nothing.redacted());
  });
}

test("so it does with every default uncommented", async () => {
  const sections = [...builtSections, rich];
  const text = uncomment(configExample(sections));
  assert.match(text, /^proxy_port = 7677 {2}# an integer from 0 to 65535$/m);
  assert.match(text, /^\[plugins\.configs\.rich\.hosts\.main\]$/m);
  const { config, problems, warnings } = await validate(text, { sections });
  assert.deepEqual([problems, warnings], [[], []]);
  const nothing = (await validate("", { sections })).config;
  assert.deepEqual(config.redacted(), nothing.redacted());
  for (const { path } of sections) {
    assert.deepEqual(config.section(path), nothing.section(path), path);
    assert.equal(config.enabled(path), nothing.enabled(path), path);
  }
  assert.equal(config.signature(), nothing.signature());
});

test("the example describes every key of every section", () => {
  const text = configExample(builtSections);
  for (const { schema } of builtSections) {
    if (!(schema instanceof z.ZodObject)) continue;
    for (const [key, value] of Object.entries(schema.shape)) {
      assert.match(text, new RegExp(`^#(\\[[a-z._]+\\.)?${key}( = |\\]$)`, "m"), key);
      const description = (value as z.ZodType).description;
      assert.ok(description === undefined || text.replace(/\n# /g, " ").includes(description), key);
    }
  }
  assert.doesNotMatch(text, /^.{121}/m);
});

test("a plugin without settings has no place in the example", () => {
  assert.doesNotMatch(configExample([thirdParty("blankslate", undefined)]), /blankslate/);
});

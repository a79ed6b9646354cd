import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { type OutsideProject, outsideProject } from "../support/outside.ts";

const PLUGIN = `
import { definePlugin, withHeader, z } from "@tokenman/plugin-sdk";

export default definePlugin({
  name: "stamp",
  version: "1.0.0",
  apiVersion: 1,
  configSchema: z.strictObject({ text: z.string().default("none") }),
  setup(ctx) {
    ctx.pipeline((config, hooks) => {
      hooks.response.tap((reply) => {
        const text: string = config.text;
        reply.headers = withHeader(reply.headers, "X-Stamp", text);
      });
    });
  },
});
`;

const TEST = `
import assert from "node:assert/strict";
import { test } from "node:test";
import { TokenmanErrors } from "@tokenman/plugin-sdk";
import {
  assertBytesEqual, assertPrefixStable, conversation, faults, providersAt, recordingUpstream, runPlugin, sendRequest,
  startKernel, throughKernel,
} from "@tokenman/plugin-sdk/testkit";
import stamp from "./plugin.ts";

const body = '{"model": "gpt-test",  "messages": []}';

test("one plugin, without sockets", async () => {
  await using run = await runPlugin(stamp, { config: { text: "alone" } });
  const { reply, upstream } = await run.send({ path: "/v1/chat/completions", body });
  assert.ok(reply.headers.includes("alone"));
  assertBytesEqual(upstream[0]!.body, body);
});

test("a whole TokenMan with its mock provider", async () => {
  await using kernel = await startKernel({ plugins: [stamp], config: '[plugins.configs.stamp]\\ntext = "packed"' });
  const reply = await fetch(kernel.proxy + "/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: "mock", messages: [{ role: "user", content: "Hello!" }] }),
  });
  assert.equal(reply.headers.get("x-stamp"), "packed");
  const answer = (await reply.json()) as { choices: { message: { content: string } }[] };
  assert.equal(answer.choices[0]?.message.content, "Hello!");
});

test("a whole TokenMan before a recording upstream, and its faults", async () => {
  await using upstream = await recordingUpstream();
  await using kernel = await startKernel({ plugins: [stamp], config: providersAt(upstream.url) });
  await assertPrefixStable(conversation({ dialect: "anthropic-messages", seed: 1 }), throughKernel(kernel, upstream));
  upstream.next(faults.status(529));
  const reply = await sendRequest(kernel.proxy + "/v1/messages", { headers: ["X-Api-Key", "k"], body });
  assert.equal(reply.status, 529);
});

test("errors of the kernel are those of the SDK", async () => {
  await assert.rejects(startKernel({ config: "[nothing]" }), TokenmanErrors);
});
`;

/** The TypeScript of the package's own page, block by block. */
function codeOf(page: string): string[] {
  const text = readFileSync(join(import.meta.dirname, "..", "..", "plugin-sdk", page), "utf8");
  return [...text.matchAll(/```ts\n(.*?)```/gs)].map(([, code]) => code!);
}

describe("the packed SDK in a project outside of the repository", () => {
  let project: OutsideProject;
  before(() => {
    project = outsideProject();
    project.write({ "plugin.ts": PLUGIN, "plugin.test.ts": TEST });
    const [hello = "", , tests = ""] = codeOf("README.md");
    project.write({ "hello.ts": hello, "hello.test.ts": tests });
  });
  after(() => project.remove());

  test("type-checks strictly, its own declarations included", () => {
    assert.equal(project.typeCheck(), "");
  });

  test("its declarations name no source files, and nothing in it names the place where it was built", () => {
    const installed = join(project.folder, "node_modules", "@tokenman", "plugin-sdk");
    const names = globSync("**/*.{ts,mjs,json,md}", { cwd: installed });
    assert.ok(names.length > 30);
    for (const name of names) {
      const text = readFileSync(join(installed, name), "utf8");
      assert.ok(!text.includes(join(import.meta.dirname, "..", "..")), name);
      if (name.endsWith(".d.ts")) assert.doesNotMatch(text, /(from |import\()"[^"]+\.ts"/, name);
    }
  });

  test("runs one plugin, and a whole TokenMan", () => {
    const { status, report } = project.test("plugin.test.ts");
    assert.equal(status, 0, report);
    assert.match(report, /# pass 4\n/);
  });

  test("the plugin and the tests of its page work as they stand there", () => {
    const { status, report } = project.test("hello.test.ts");
    assert.equal(status, 0, report);
    assert.match(report, /# pass 3\n/);
  });
});

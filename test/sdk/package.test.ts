import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";

const ROOT = join(import.meta.dirname, "..", "..");

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
import { startKernel } from "@tokenman/plugin-sdk/testkit";
import stamp from "./plugin.ts";

test("the stamp is on the reply", async () => {
  await using kernel = await startKernel({ plugins: [stamp], config: '[plugins.configs.stamp]\\ntext = "packed"' });
  const reply = await fetch(kernel.proxy + "/v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: "mock", messages: [{ role: "user", content: "Hello!" }] }),
  });
  assert.equal(reply.headers.get("x-stamp"), "packed");
  const body = (await reply.json()) as { choices: { message: { content: string } }[] };
  assert.equal(body.choices[0]?.message.content, "Hello!");
});

test("errors of the kernel are those of the SDK", async () => {
  await assert.rejects(startKernel({ config: "[nothing]" }), TokenmanErrors);
});
`;

describe("the packed SDK in a project outside of the repository", () => {
  let project: string;

  before(() => {
    project = mkdtempSync(join(tmpdir(), "outside-"));
    // A copy: another test may build, too.
    const sources = join(project, "sources");
    for (const part of [
      "package.json",
      "tsconfig.json",
      "LICENSE",
      "plugin-sdk",
      "kernel",
      "cli",
      "plugins",
      "scripts",
    ]) {
      cpSync(join(ROOT, part), join(sources, part), {
        recursive: true,
        filter: (path) => !/[/\\](node_modules|dist)$/.test(path),
      });
    }
    linkPackages(
      join(sources, "node_modules"),
      readdirSync(join(ROOT, "node_modules")).filter((name) => name !== "@tokenman"),
    );
    mkdirSync(join(sources, "node_modules", "@tokenman"));
    symlinkSync("../../plugin-sdk", join(sources, "node_modules", "@tokenman", "plugin-sdk"));
    execFileSync(process.execPath, [join(sources, "scripts", "build-sdk.ts")], {
      cwd: sources,
      stdio: ["ignore", "ignore", "inherit"],
    });

    const dist = join(sources, "plugin-sdk", "dist");
    const packed = execFileSync("npm", ["pack", "--silent", "--pack-destination", project], {
      cwd: dist,
      encoding: "utf8",
    }).trim();
    const target = join(project, "node_modules", "@tokenman", "plugin-sdk");
    mkdirSync(target, { recursive: true });
    execFileSync("tar", ["xzf", join(project, packed), "--strip-components=1", "-C", target]);
    rmSync(sources, { recursive: true });
    // What npm would have fetched: the package's dependencies, and what the project itself needs to compile.
    const { dependencies } = JSON.parse(readFileSync(join(target, "package.json"), "utf8")) as {
      dependencies: object;
    };
    linkPackages(join(project, "node_modules"), [
      ...Object.keys(dependencies),
      "typescript",
      "@typescript",
      "@types",
      "undici-types",
    ]);

    writeFileSync(join(project, "package.json"), '{ "type": "module" }');
    writeFileSync(join(project, "plugin.ts"), PLUGIN);
    writeFileSync(join(project, "plugin.test.ts"), TEST);
  });
  after(() => rmSync(project, { recursive: true, force: true }));

  test("type-checks strictly, its own declarations included", () => {
    const compilerOptions = {
      module: "nodenext",
      target: "es2024",
      lib: ["es2024", "esnext"],
      types: ["node"],
      strict: true,
      noEmit: true,
      allowImportingTsExtensions: true,
      skipLibCheck: false,
    };
    writeFileSync(join(project, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.ts"] }));
    const tsc = join(project, "node_modules", "typescript", "bin", "tsc");
    const { status, stdout } = spawnSync(process.execPath, [tsc, "-p", project], { encoding: "utf8" });
    assert.equal(status, 0, stdout);
  });

  test("runs a plugin in a whole TokenMan", () => {
    const { status, stdout } = spawnSync(
      process.execPath,
      ["--test", "--test-reporter=tap", "plugin.test.ts"],
      {
        cwd: project,
        encoding: "utf8",
        env: { ...process.env, NODE_TEST_CONTEXT: undefined },
        timeout: 60_000,
      },
    );
    assert.equal(status, 0, stdout);
    assert.match(stdout, /# pass 2\n/);
  });
});

function linkPackages(folder: string, names: readonly string[]): void {
  mkdirSync(folder, { recursive: true });
  for (const name of names) {
    const source = join(ROOT, "node_modules", name);
    mkdirSync(join(folder, name, ".."), { recursive: true });
    try {
      symlinkSync(source, join(folder, name));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
  }
}

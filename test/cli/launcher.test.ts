import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";

const LAUNCHER = join(import.meta.dirname, "..", "..", "scripts", "launcher.sh");
/** What the launcher is to run: says which Node runs it, and with which arguments. */
const PROGRAM =
  "console.log(JSON.stringify({ node: process.env.FAKE ?? 'real', pid: process.pid, flags: process.execArgv, args: process.argv.slice(2) }));";

let root: string;
let launcher: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "launcher "));
  mkdirSync(join(root, "bin"));
  mkdirSync(join(root, "dist", "tokenman"), { recursive: true });
  writeFileSync(join(root, "dist", "tokenman", "main.mjs"), PROGRAM);
  launcher = join(root, "bin", "tokenman");
  copyFileSync(LAUNCHER, launcher);
  chmodSync(launcher, 0o755);
});
afterEach(() => rmSync(root, { recursive: true }));

/** A `node` of the given version in a folder of its own, which runs scripts with the real one. */
function fakeNode(folder: string, version: string): string {
  mkdirSync(folder, { recursive: true });
  const script = `#!/bin/sh\n[ "$1" = --version ] && { echo ${version}; exit; }\nFAKE=${version} exec "${process.execPath}" "$@"\n`;
  writeFileSync(join(folder, "node"), script, { mode: 0o755 });
  return folder;
}

const pinned = () => fakeNode(join(root, "node_modules", "node", "bin"), "v26.1.0");

function run(path: readonly string[], args: readonly string[] = [], command = launcher, cwd = "/") {
  // The tools that the script itself calls.
  const PATH = [...path, "/usr/bin", "/bin"].join(":");
  return spawnSync(command, args, { cwd, env: { PATH }, encoding: "utf8" });
}

/** Folders without any `node` in them but with what a shell script calls. */
function bareTools(): string {
  const folder = join(root, "tools");
  mkdirSync(folder);
  for (const tool of ["dirname", "readlink", "sh"]) {
    symlinkSync(
      spawnSync("sh", ["-c", `command -v ${tool}`], { encoding: "utf8" }).stdout.trim(),
      join(folder, tool),
    );
  }
  return folder;
}

function runBare(path: readonly string[]) {
  return spawnSync("/bin/sh", [launcher], {
    cwd: "/",
    env: { PATH: [...path, bareTools()].join(":") },
    encoding: "utf8",
  });
}

describe("bin/tokenman", () => {
  test("runs with the Node on the PATH where that is new enough", () => {
    pinned();
    const { stdout, status } = run([fakeNode(join(root, "new"), "v24.16.0")]);
    assert.equal(status, 0);
    assert.equal(JSON.parse(stdout).node, "v24.16.0");
  });

  test("gives a heap for large bodies to a Node that is known to take the flag, and nothing to a later one", () => {
    for (const [version, flags] of [
      ["v24.16.0", ["--initial-old-space-size=192"]],
      ["v26.9.0", ["--initial-old-space-size=192"]],
      ["v27.0.0", []],
    ] as const) {
      const { stdout, status } = run([fakeNode(join(root, version), version)]);
      assert.equal(status, 0);
      assert.deepEqual(JSON.parse(stdout).flags, flags);
    }
  });

  for (const version of ["v20.20.2", "v24.15.9", "v9.99.0", "nonsense"]) {
    test(`runs with the pinned Node where the PATH has ${version}`, () => {
      pinned();
      const { stdout, status } = run([fakeNode(join(root, "old"), version)]);
      assert.equal(status, 0);
      assert.equal(JSON.parse(stdout).node, "v26.1.0");
    });
  }

  test("says in one line what is missing where there is only an old Node, and exits with 69", () => {
    const { stdout, stderr, status } = run([fakeNode(join(root, "old"), "v20.20.2")]);
    assert.equal(status, 69);
    assert.equal(stdout, "");
    assert.match(
      stderr,
      /^tokenman: needs Node 24\.16 or newer; .*\/node is v20\.20\.2\. Run "npm ci" in .*\n$/,
    );
  });

  test("says so too where there is no Node at all, and finds the pinned one then", () => {
    const without = runBare([]);
    assert.equal(without.status, 69);
    assert.match(without.stderr, /^tokenman: needs Node 24\.16 or newer; none is on the PATH\..*\n$/);
    rmSync(join(root, "tools"), { recursive: true });
    pinned();
    assert.equal(JSON.parse(runBare([]).stdout).node, "v26.1.0");
  });

  test("keeps arguments as they are, and finds its folder through symbolic links from anywhere", () => {
    pinned();
    const old = fakeNode(join(root, "old"), "v20.0.0");
    const args = ["a b", "", "--x=*", "$HOME", "'"];
    mkdirSync(join(root, "links"));
    symlinkSync("../bin/tokenman", join(root, "links", "relative"));
    symlinkSync(join(root, "links", "relative"), join(root, "links", "absolute"));
    for (const [command, cwd] of [
      [launcher, "/"],
      [join(root, "links", "relative"), "/"],
      [join(root, "links", "absolute"), tmpdir()],
      ["./relative", join(root, "links")],
    ] as const) {
      const { stdout, stderr } = run([old], args, command, cwd);
      assert.deepEqual(JSON.parse(stdout || stderr).args, args, command);
    }
  });

  test("becomes Node rather than its parent, so that signals reach it", async () => {
    pinned();
    const child = spawn(launcher, [], {
      env: { PATH: "/usr/bin:/bin" },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let out = "";
    for await (const chunk of child.stdout) out += chunk;
    assert.equal(JSON.parse(out).pid, child.pid);
  });
});

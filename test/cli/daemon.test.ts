import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { processIdentity } from "../../cli/process-identity.ts";

const ENTRY = join(import.meta.dirname, "support", "fake-daemon.mjs");
const DAEMON = join(import.meta.dirname, "..", "..", "cli", "daemon.ts");

let folder: string;
let config: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "daemon-"));
  config = join(folder, "tokenman.toml");
  writeFileSync(config, `[server]\ndata_dir = ${JSON.stringify(join(folder, "data"))}\n`);
});
afterEach(() => rmSync(folder, { recursive: true }));

const logFile = () => join(folder, "data", "tokenman.log");

/** Starts the fake in a process of its own, as the command does; gives what that printed and the fake's process id. */
function start(behaviour: string, timeoutMs = 20_000) {
  const script = `
    import { startDaemon } from ${JSON.stringify(DAEMON)};
    try {
      process.exitCode = await startDaemon({
        config: ${JSON.stringify(config)}, plugins: "", timeoutMs: ${timeoutMs},
        print: (line) => console.log(line), entry: ${JSON.stringify(ENTRY)},
      });
    } catch (error) {
      console.error(error.code, error.message);
      process.exitCode = error.exit;
    }`;
  const result = spawnSync(
    process.execPath,
    ["--initial-old-space-size=192", "--input-type=module", "--eval", script],
    {
      env: { ...process.env, FAKE_DAEMON: behaviour },
      encoding: "utf8",
      timeout: 30_000,
    },
  );
  const log = readFileSync(logFile(), "utf8");
  return { ...result, log, pid: Number(/pid (\d+)/.exec(log)?.[1]) };
}

describe("a background start", () => {
  test("ends when the instance is ready, says where it is, and leaves it running", () => {
    const { status, stdout, stderr, pid, log } = start("ready");
    try {
      assert.equal(status, 0, stderr);
      assert.equal(
        stdout,
        `TokenMan is running (pid ${pid})\n  proxy      http://127.0.0.1:1\n  dashboard  http://127.0.0.1:2\n  log        ${logFile()}\n`,
      );
      assert.ok(processIdentity(pid) !== undefined, "it lives");
      assert.match(log, /arguments \["start","--foreground","--config=.*tokenman\.toml","--plugins=none"\]/);
      assert.match(
        log,
        /flags \["--initial-old-space-size=192"\] /,
        "the launcher's heap, and no other flag",
      );
      assert.equal(statSync(logFile()).mode & 0o777, 0o600);
      assert.equal(statSync(join(folder, "data")).mode & 0o777, 0o700);
    } finally {
      process.kill(pid, "SIGKILL");
    }
  });

  test("that is refused prints all of the reasons and exits as the instance did", () => {
    const { status, stdout, stderr } = start("failed");
    assert.equal(status, 78);
    assert.equal(stdout, "");
    assert.equal(stderr, "a.toml:1:2: TM_CONFIG_INVALID first\na.toml:3:4: TM_CONFIG_INVALID second\n");
  });

  test("of an instance that dies without a message prints what it logged", () => {
    const { status, stderr } = start("dies");
    assert.equal(status, 42);
    assert.match(stderr, /something went very wrong/);
  });

  for (const behaviour of ["hangs", "loops"]) {
    test(`that takes too long is called off: TM_START_TIMEOUT, and no process stays that ${behaviour}`, () => {
      const { status, stderr, pid } = start(behaviour, 1_000);
      assert.equal(status, 69);
      assert.match(
        stderr,
        /^TM_START_TIMEOUT TokenMan did not become ready within 1 s and was stopped; its log is /,
      );
      assert.equal(processIdentity(pid), undefined);
    });
  }
});

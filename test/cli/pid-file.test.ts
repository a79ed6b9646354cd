import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { TokenmanError } from "@tokenman/plugin-sdk";
import {
  claimPidFile,
  isAlive,
  type PidRecord,
  pidFile,
  runningInstance,
  signalInstance,
} from "../../cli/pid-file.ts";
import { processIdentity } from "../../cli/process-identity.ts";

const FACTS = { version: "1", configFile: undefined };
let folder: string;
let stranger: ChildProcess;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "pid-"));
  stranger = spawn(process.execPath, ["-e", "setInterval(() => {}, 1e6)"], { stdio: "ignore" });
  await once(stranger, "spawn");
});
afterEach(async () => {
  rmSync(folder, { recursive: true });
  if (stranger.exitCode === null && stranger.signalCode === null) {
    stranger.kill("SIGKILL");
    await once(stranger, "exit");
  }
});

function recordOf(pid: number, identity: string | undefined): PidRecord {
  assert.ok(identity !== undefined);
  return {
    pid,
    identity,
    startedAt: 1,
    bootId: "b",
    proxy: "http://127.0.0.1:1",
    dashboard: undefined,
    handsOver: true,
    before: [],
    ...FACTS,
  };
}
const write = (content: unknown) => writeFileSync(pidFile(folder), JSON.stringify(content));

describe("the PID file", () => {
  test("holds the process and, once it listens, its addresses; nobody else can read it; it goes with its owner", () => {
    const claim = claimPidFile(folder, { version: "1.2.3", configFile: "/c.toml" });
    const first = runningInstance(folder);
    assert.equal(first?.pid, process.pid);
    assert.equal(first?.proxy, undefined);
    claim.complete({ bootId: "boot", proxy: "http://127.0.0.1:1", dashboard: "http://127.0.0.1:2" });
    const { startedAt, identity, ...rest } = runningInstance(folder) ?? recordOf(0, "");
    assert.deepEqual(rest, {
      pid: process.pid,
      version: "1.2.3",
      configFile: "/c.toml",
      bootId: "boot",
      proxy: "http://127.0.0.1:1",
      dashboard: "http://127.0.0.1:2",
      handsOver: true,
      before: [],
    });
    assert.ok(startedAt > 0 && identity !== "");
    assert.equal(statSync(pidFile(folder)).mode & 0o777, 0o600);
    claim.release();
    assert.deepEqual(readdirSync(folder), []);
  });

  test("is refused while another instance lives, which is named", () => {
    write({ ...recordOf(stranger.pid!, processIdentity(stranger.pid!)), dashboard: "http://127.0.0.1:99" });
    assert.throws(
      () => claimPidFile(folder, FACTS),
      (error) =>
        error instanceof TokenmanError &&
        error.code === "TM_ALREADY_RUNNING" &&
        error.message.includes(`pid ${stranger.pid}, dashboard http://127.0.0.1:99`),
    );
    assert.equal(JSON.parse(readFileSync(pidFile(folder), "utf8")).pid, stranger.pid);
  });

  for (const [what, content] of [
    ["of a process that is gone", { pid: 2 ** 22 + 1, identity: "x" }],
    ["that is cut off", undefined],
    ["that is a bare number, as older programs write it", 4711],
  ] as const) {
    test(`${what} does not stop a start`, () => {
      if (content === undefined) writeFileSync(pidFile(folder), '{"pid": 1');
      else write(content);
      assert.equal(runningInstance(folder), undefined);
      claimPidFile(folder, FACTS);
      assert.equal(runningInstance(folder)?.pid, process.pid);
    });
  }

  test("of a process whose number a stranger has now: the stranger is neither an instance nor signalled", async () => {
    const stale = recordOf(stranger.pid!, processIdentity(process.pid));
    write(stale);
    assert.equal(runningInstance(folder), undefined);
    assert.equal(signalInstance(stale, "SIGKILL"), false);
    claimPidFile(folder, FACTS);
    assert.ok(processIdentity(stranger.pid!) !== undefined, "the stranger lives");
    assert.equal(stranger.signalCode, null);
  });

  test("signals the recorded process, and notices that it is gone", async () => {
    const record = recordOf(stranger.pid!, processIdentity(stranger.pid!));
    assert.equal(signalInstance(record, "SIGTERM"), true);
    await once(stranger, "exit");
    assert.equal(isAlive(record), false);
    assert.equal(signalInstance(record, "SIGTERM"), false);
  });

  test("taken by a second start that found the same stale file: the first one gives way, and leaves it alone", () => {
    const claim = claimPidFile(folder, FACTS);
    write(recordOf(stranger.pid!, processIdentity(stranger.pid!)));
    assert.throws(
      () => claim.complete({ bootId: "b", proxy: "", dashboard: "" }),
      (error) => error instanceof TokenmanError && error.code === "TM_ALREADY_RUNNING",
    );
    claim.release();
    assert.equal(runningInstance(folder)?.pid, stranger.pid);
  });

  test("in a folder that cannot be written is TM_DATA_DIR", () => {
    assert.throws(
      () => claimPidFile(join(folder, "missing"), FACTS),
      (error) => error instanceof TokenmanError && error.code === "TM_DATA_DIR",
    );
  });
});

test("a process's identity is stable, differs between processes, and is none for what does not exist", () => {
  assert.equal(processIdentity(process.pid), processIdentity(process.pid));
  assert.notEqual(processIdentity(process.pid), processIdentity(1));
  for (const pid of [0, -1, 1.5, Number.NaN, 2 ** 22 + 1]) assert.equal(processIdentity(pid), undefined);
});

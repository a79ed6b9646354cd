import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { processIdentity } from "../../cli/process-identity.ts";
import { type RestartRequest, requestFile, takeRequest, writeRequest } from "../../cli/restart-request.ts";
import { isWholeChunked } from "../support/raw-client.ts";
import { heldStreams } from "./support/held-stream.ts";
import { gone, Sandbox, untilIn } from "./support/instance.ts";

const limits = { timeout: 60_000 };

/** Leaves no connection behind, on which a process that hands over would wait. */
const healthy = async (base: string | undefined) =>
  (await fetch(`${base}/health`, { headers: { connection: "close" } })).status === 200;

test("nothing to restart, and times that are none, are clear errors", limits, async () => {
  await using box = new Sandbox();
  const nothing = await box.run("restart");
  assert.equal(nothing.status, 69);
  assert.match(nothing.stderr, /TM_NOT_RUNNING no TokenMan runs with .*; start it with "tokenman start"/);
  for (const flag of ["--timeout", "--drain"]) {
    const wrong = await box.run("restart", flag, "soon");
    assert.deepEqual(
      [wrong.status, wrong.stderr.includes(`${flag}: expected a number of seconds`)],
      [64, true],
    );
  }
});

test(
  "an instance that does not know the signal, to which it would be deadly, does not get it",
  limits,
  async () => {
    await using box = new Sandbox();
    const { child, proxy, ended } = await box.serve();
    const { handsOver: _, ...older } = box.record;
    writeFileSync(join(box.dataDir, "tokenman.pid"), JSON.stringify(older));
    const { status, stderr } = await box.run("restart");
    assert.equal(status, 69);
    assert.match(stderr, /cannot hand over; use "tokenman stop" and "tokenman start"/);
    assert.ok(await healthy(proxy));
    child.kill("SIGTERM");
    await ended;
  },
);

describe("a new process that does not come up: the old one serves on, and the command says why", {
  concurrency: 3,
}, () => {
  const faulty = (setup: string) => `
    import { writeFileSync } from "node:fs";
    import { definePlugin } from "@tokenman/plugin-sdk";
    export default definePlugin({
      name: "faulty", version: "1.0.0", apiVersion: 1,
      async setup() { ${setup} },
    });`;
  const cases = [
    {
      what: "a config that is wrong",
      edit: (box: Sandbox) => box.config("[auth]\nenabeld = true\n"),
      exit: 78,
      says: /tokenman\.toml:6:1: TM_CONFIG_UNKNOWN_KEY .*enabled/,
    },
    {
      what: "a plugin whose set-up fails",
      edit: (box: Sandbox) =>
        writeFileSync(join(box.folder, "faulty.ts"), faulty('throw new Error("no way");')),
      exit: 78,
      says: /TM_PLUGIN_SETUP .*no way/,
    },
    {
      what: "a process that ends without a word",
      edit: (box: Sandbox) => writeFileSync(join(box.folder, "faulty.ts"), faulty("process.exit(3);")),
      exit: 3,
      says: /it ended without a word/,
    },
    {
      what: "a process that is killed",
      edit: (box: Sandbox) =>
        writeFileSync(join(box.folder, "faulty.ts"), faulty('process.kill(process.pid, "SIGKILL");')),
      exit: 70,
      says: /it was ended by SIGKILL/,
    },
    {
      what: "a process that hangs",
      edit: (box: Sandbox) =>
        writeFileSync(
          join(box.folder, "faulty.ts"),
          faulty('writeFileSync("hung", String(process.pid)); for (;;);'),
        ),
      exit: 69,
      says: /TM_START_TIMEOUT the new process did not become ready within 2 s and was stopped/,
      flags: ["--timeout", "2"],
    },
  ];
  for (const { what, edit, exit, says, flags = [] } of cases) {
    test(what, limits, async () => {
      await using box = new Sandbox("[watch]\nenabled = false\n");
      writeFileSync(join(box.folder, "faulty.ts"), faulty(""));
      const start = await box.run("start", "--plugins", "+./faulty.ts");
      assert.equal(start.status, 0, start.stderr);
      const before = box.record;
      edit(box);
      const { status, stdout, stderr } = await box.run("restart", ...flags);
      assert.match(stderr, says);
      assert.match(stderr, new RegExp(`\nnot restarted: pid ${before.pid} serves on\n$`));
      assert.deepEqual([status, stdout], [exit, ""]);
      assert.deepEqual(box.record, before);
      assert.ok(await healthy(before.proxy));
      const hung = join(box.folder, "hung");
      if (existsSync(hung)) assert.equal(processIdentity(Number(readFileSync(hung, "utf8"))), undefined);
      assert.match(box.log, /not restarted, this process serves on/);
      assert.ok(!existsSync(requestFile(box.dataDir)), "the request is taken away");
      // What is mended can be tried again.
      box.config("[watch]\nenabled = false\n");
      writeFileSync(join(box.folder, "faulty.ts"), faulty(""));
      const again = await box.run("restart");
      assert.deepEqual([again.status, again.stderr], [0, ""]);
      assert.notEqual(box.record.pid, before.pid);
      assert.ok(await healthy(before.proxy));
      await gone(before.pid);
    });
  }
});

test("a Node or a script that is not there leaves the old process as it was", limits, async () => {
  await using box = new Sandbox();
  await box.run("start");
  const { pid, proxy } = box.record;
  const request = (id: string, execPath: string, entry: string): RestartRequest => ({
    id,
    pid,
    at: Date.now(),
    execPath,
    entry,
    timeoutMs: 20_000,
    drainMs: 1_000,
  });
  const answered = () =>
    !existsSync(requestFile(box.dataDir)) ||
    readFileSync(requestFile(box.dataDir), "utf8").includes("answer");
  for (const [node, entry, says] of [
    [join(box.folder, "no-node"), "main.mjs", "it could not be started"],
    [process.execPath, join(box.folder, "no-script.mjs"), "Cannot find module"],
  ] as const) {
    writeRequest(box.dataDir, request("an-id", node, entry));
    process.kill(pid, "SIGUSR2");
    await untilIn(box.dataDir, () => answered() && existsSync(requestFile(box.dataDir)));
    assert.match(readFileSync(requestFile(box.dataDir), "utf8"), new RegExp(says));
    assert.ok(await healthy(proxy));
  }
});

test(
  "a port that was changed in the config is opened by the new process, and the old one is closed",
  limits,
  async () => {
    const free = createServer();
    free.listen(0, "127.0.0.1");
    await once(free, "listening");
    const { port } = free.address() as { port: number };
    free.close();
    await once(free, "close");
    await using box = new Sandbox();
    await box.run("start");
    const before = box.record;
    const text = readFileSync(box.configFile, "utf8").replace("proxy_port = 0", `proxy_port = ${port}`);
    writeFileSync(box.configFile, text);
    const { status, stderr } = await box.run("restart");
    assert.equal(status, 0, stderr);
    const after = box.record;
    assert.deepEqual([after.proxy, after.dashboard], [`http://127.0.0.1:${port}`, before.dashboard]);
    assert.ok(await healthy(after.proxy));
    await gone(before.pid);
    await assert.rejects(healthy(before.proxy));
  },
);

test("a signal in the middle of a restart stops both processes", limits, async () => {
  await using box = new Sandbox();
  writeFileSync(
    join(box.folder, "slow.ts"),
    `import { definePlugin } from "@tokenman/plugin-sdk";
     import { existsSync, writeFileSync } from "node:fs";
     export default definePlugin({
       name: "slow", version: "1.0.0", apiVersion: 1,
       async setup() {
         if (!existsSync("begun")) return writeFileSync("begun", "");
         writeFileSync("begun", String(process.pid));
         await new Promise((resolve) => setTimeout(resolve, 60_000));
       },
     });`,
  );
  const begun = join(box.folder, "begun");
  assert.equal((await box.run("start", "--plugins", "+./slow.ts")).status, 0);
  const { pid } = box.record;
  const restarting = box.run("restart");
  await untilIn(box.folder, () => readFileSync(begun, "utf8") !== "");
  assert.equal((await box.run("stop")).status, 0);
  const { status, stderr } = await restarting;
  assert.equal(status, 69, stderr);
  assert.match(stderr, /it was told to stop meanwhile|has ended/);
  assert.doesNotMatch(stderr, /serves on/);
  await gone(pid);
  await gone(Number(readFileSync(begun, "utf8")));
  assert.deepEqual(
    readdirSync(box.dataDir).filter((name) => name.startsWith("tokenman.pid")),
    [],
  );
});

test("a request that was left behind without its signal is not taken up by a later one", () => {
  const folder = mkdtempSync(join(tmpdir(), "request-"));
  const request = {
    id: "a",
    pid: process.pid,
    at: Date.now(),
    execPath: "",
    entry: "",
    timeoutMs: 1,
    drainMs: 1,
  };
  writeRequest(folder, request);
  assert.deepEqual(takeRequest(folder), request);
  assert.equal(takeRequest(folder), undefined, "it is taken once");
  for (const stale of [{ at: Date.now() - 120_000 }, { pid: 1 }]) {
    writeRequest(folder, { ...request, ...stale });
    assert.equal(takeRequest(folder), undefined);
  }
  for (const text of ["", "{", "null", "[]"]) {
    writeFileSync(requestFile(folder), text);
    assert.equal(takeRequest(folder), undefined);
  }
  rmSync(folder, { recursive: true });
});

describe("in the foreground the process that somebody waits for stays", { concurrency: 2 }, () => {
  test("until the last of its successors has ended; signals are passed on", limits, async () => {
    await using box = new Sandbox();
    const { child, proxy, ended } = await box.serve();
    const pids = [child.pid as number];
    for (const how of ["command", "signal", "command"]) {
      if (how === "command") assert.equal((await box.run("restart")).status, 0);
      else child.kill("SIGUSR2");
      await untilIn(box.dataDir, () => box.record.pid !== pids.at(-1));
      pids.push(box.record.pid);
      assert.ok(await healthy(proxy));
    }
    // Those in between do not stay.
    await Promise.all(pids.slice(1, -1).map(gone));
    assert.equal(child.exitCode, null);
    child.kill("SIGHUP");
    const generation = async () =>
      (JSON.parse((await box.run("status", "--json")).stdout) as { generation: number }).generation;
    while ((await generation()) === 1);
    child.kill("SIGTERM");
    const { status, stderr } = await ended;
    assert.equal(status, 0, stderr);
    assert.equal(processIdentity(pids.at(-1) as number), undefined, "it was the last");
    await assert.rejects(healthy(proxy));
  });

  test("and ends when that is stopped, or killed", limits, async () => {
    for (const [how, exit] of [
      ["stop", 0],
      ["kill", 70],
    ] as const) {
      await using box = new Sandbox();
      const { ended } = await box.serve();
      assert.equal((await box.run("restart")).status, 0);
      if (how === "stop") assert.equal((await box.run("stop")).status, 0);
      else process.kill(box.record.pid, "SIGKILL");
      assert.equal((await ended).status, exit);
    }
  });

  test("and does not wait for older ones longer than for a stop when that dies", limits, async () => {
    await using held = await heldStreams();
    await using box = new Sandbox(held.config);
    const { ended, proxy, says } = await box.serve();
    assert.equal((await box.run("restart")).status, 0);
    const older = box.record.pid;
    const client = await held.begin(proxy);
    assert.equal((await box.run("restart")).status, 0);
    process.kill(box.record.pid, "SIGKILL");
    // The one in the foreground notices, and stops the older one, whose stream may end yet.
    await says((stderr) => /"reason":"SIGTERM".*"shutting down"/.test(stderr));
    held.end();
    assert.match(await client.until(isWholeChunked), /message_stop/);
    assert.equal((await ended).status, 70);
    assert.equal(processIdentity(older), undefined);
  });

  test("and does not leave them behind when it is killed itself", limits, async () => {
    await using box = new Sandbox();
    const { child, ended } = await box.serve();
    assert.equal((await box.run("restart")).status, 0);
    const { pid } = box.record;
    child.kill("SIGKILL");
    await ended;
    await gone(pid);
    assert.ok(!existsSync(join(box.dataDir, "tokenman.pid")));
  });
});

test("Ctrl-C in a terminal is one signal to each process, not two", limits, async () => {
  await using held = await heldStreams();
  await using box = new Sandbox(held.config);
  const { child, ended, says } = await box.serveInGroup();
  assert.equal((await box.run("restart")).status, 0);
  const { pid, proxy } = box.record;
  const client = await held.begin(proxy as string);
  process.kill(-(child.pid as number), "SIGINT");
  // From the terminal, or passed on by the one in the foreground: a second one would break the stream off.
  await says((stderr) => /"reason":"SIG(INT|TERM)".*"shutting down"/.test(stderr));
  held.end();
  assert.match(await client.until(isWholeChunked), /message_stop/);
  assert.equal((await ended).status, 0);
  await gone(pid);
});

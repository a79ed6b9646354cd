import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { test } from "node:test";
import { Sandbox, untilIn } from "./support/instance.ts";

const limits = { timeout: 60_000 };
const has = (program: string) => spawnSync(program, ["--version"], { stdio: "ignore" }).status === 0;

/** What the service manager is told, one message a line, with its assignments separated by tabs. */
class Told {
  readonly file: string;
  constructor(file: string) {
    this.file = file;
    appendFileSync(file, "");
  }
  get messages(): string[] {
    return readFileSync(this.file, "utf8").split("\n").slice(0, -1);
  }
  /** The first message that matches after the first `from`, and the number of messages up to it. */
  async until(pattern: RegExp, from = 0): Promise<{ readonly message: string; readonly count: number }> {
    let index = -1;
    await untilIn(dirname(this.file), () => {
      index = this.messages.findIndex((each, at) => at >= from && pattern.test(each));
      return index >= 0;
    });
    return { message: this.messages[index] as string, count: index + 1 };
  }
}

/** Stands for systemd-notify: writes down what it is told, and by whom. */
function fakeNotify(folder: string, told: Told): string {
  const bin = join(folder, "bin");
  mkdirSync(bin);
  const program = join(bin, "systemd-notify");
  const file = JSON.stringify(told.file);
  writeFileSync(program, `#!/bin/sh\nIFS='\t'\nprintf '%s\\n' "socket=$NOTIFY_SOCKET\t$*" >> ${file}\n`);
  chmodSync(program, 0o755);
  return `${bin}${delimiter}${process.env["PATH"]}`;
}

/** Everything that a manager is told, in order: a start, signs of life, a reload, a restart, a stop. */
async function tellsAll(box: Sandbox, told: Told): Promise<void> {
  const { child, proxy, logged } = await box.serve();
  const exit = once(child, "exit");
  const ready = await told.until(/READY=1/);
  assert.match(ready.message, new RegExp(`READY=1\tSTATUS=serving ${proxy}$`));
  const alive = await told.until(/WATCHDOG=1/);

  const before = process.hrtime.bigint() / 1000n;
  child.kill("SIGHUP");
  const reloading = await told.until(/RELOADING=1/, alive.count);
  const usec = BigInt(/MONOTONIC_USEC=(\d+)$/.exec(reloading.message)?.[1] ?? 0);
  assert.ok(usec >= before && usec <= process.hrtime.bigint() / 1000n, "the system's monotonic clock");
  const reloaded = await told.until(/READY=1/, reloading.count);
  assert.match(reloaded.message, /STATUS=generation 2 serves/);

  assert.equal((await box.run("restart")).status, 0);
  const successor = box.record.pid;
  const main = await told.until(/MAINPID=/, reloaded.count);
  assert.match(main.message, new RegExp(`MAINPID=${successor}$`));
  await told.until(/READY=1/, reloaded.count);
  // Not its output's end: the new process has that from it.
  assert.deepEqual(await exit, [0, null], logged());
  const { length } = told.messages;
  assert.ok(!told.messages.some((each) => each.includes("STOPPING")), "the service does not stop");
  await told.until(/WATCHDOG=1/, length);

  assert.equal((await box.run("stop")).status, 0);
  const stopping = await told.until(/STOPPING=1/, length);
  assert.match(stopping.message, /STOPPING=1\tSTATUS=finishing 0 requests$/);
}

test(
  "a service manager is told of a start, signs of life, a reload, a restart and a stop",
  limits,
  async () => {
    await using box = new Sandbox("[watch]\nenabled = false\n");
    const told = new Told(join(box.folder, "told"));
    box.env["PATH"] = fakeNotify(box.folder, told);
    Object.assign(box.env, { NOTIFY_SOCKET: "@manager", WATCHDOG_USEC: "1000000" });
    await tellsAll(box, told);
    assert.ok(told.messages.every((each) => each.startsWith("socket=@manager\t")));
  },
);

test("a process whose event loop hangs gives no sign of life until it goes on", limits, async () => {
  await using hung = new Sandbox("[watch]\nenabled = false\n");
  // Tells how time goes by.
  await using sound = new Sandbox("[watch]\nenabled = false\n");
  const tolds = [hung, sound].map((box) => {
    const told = new Told(join(box.folder, "told"));
    box.env["PATH"] = fakeNotify(box.folder, told);
    Object.assign(box.env, { NOTIFY_SOCKET: "@manager", WATCHDOG_USEC: "400000" });
    return told;
  });
  const [silent, clock] = tolds as [Told, Told];
  writeFileSync(
    join(hung.folder, "hang.ts"),
    `import { existsSync, writeFileSync } from "node:fs";
     import { definePlugin } from "@tokenman/plugin-sdk";
     export default definePlugin({
       name: "hang", version: "1.0.0", apiVersion: 1,
       setup(ctx) {
         ctx.contribute("route", { port: "proxy", method: "GET", path: "/hang", handle({ json }) {
           writeFileSync("hangs", "");
           while (!existsSync("go-on"));
           json(200, {});
         } });
       },
     });`,
  );
  const { proxy } = await hung.serve("--plugins", "+./hang.ts");
  await sound.serve();
  await silent.until(/WATCHDOG=1/);
  const reply = fetch(`${proxy}/hang`);
  const ticks = async (count: number): Promise<void> => {
    for (let from = clock.messages.length; count > 0; count--)
      from = (await clock.until(/WATCHDOG=1/, from)).count;
  };
  while (!existsSync(join(hung.folder, "hangs"))) await ticks(1);
  // What was under way when the loop stopped arrives yet.
  await ticks(2);
  const { length } = silent.messages;
  await ticks(5);
  assert.equal(silent.messages.length, length);
  writeFileSync(join(hung.folder, "go-on"), "");
  assert.equal((await reply).status, 200);
  await silent.until(/WATCHDOG=1/, length);
});

test("systemd's own program brings it to a Unix datagram socket", {
  ...limits,
  skip: !(has("systemd-notify") && has("python3")) && "needs systemd-notify and python3",
}, async () => {
  await using box = new Sandbox("[watch]\nenabled = false\n");
  const told = new Told(join(box.folder, "told"));
  const socket = join(box.folder, "notify.sock");
  // Descriptors that come along, for systemd-notify's barrier, are closed at once: there is no room for them.
  const script = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print("bound", flush=True)
out = open(sys.argv[2], "a")
while True:
    message = s.recv(65536).decode()
    if "BARRIER" not in message:
        out.write(message.rstrip("\\n").replace("\\n", "\\t") + "\\n")
        out.flush()
`;
  const receiver = spawn("python3", ["-c", script, socket, told.file], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    await once(receiver.stdout, "data");
    // It is of another process, so it is not for this one: no signs of life are wanted.
    Object.assign(box.env, { NOTIFY_SOCKET: socket, WATCHDOG_USEC: "1000000" });
    await tellsAll(box, told);
  } finally {
    receiver.kill("SIGKILL");
  }
});

test(
  "a watchdog of another process, or none, is left alone; plugins' programs inherit nothing",
  limits,
  async () => {
    await using box = new Sandbox("[watch]\nenabled = false\n");
    const told = new Told(join(box.folder, "told"));
    box.env["PATH"] = fakeNotify(box.folder, told);
    Object.assign(box.env, { NOTIFY_SOCKET: "/manager", WATCHDOG_USEC: "1000", WATCHDOG_PID: "1" });
    writeFileSync(
      join(box.folder, "curious.ts"),
      `import { definePlugin } from "@tokenman/plugin-sdk";
     export default definePlugin({
       name: "curious", version: "1.0.0", apiVersion: 1,
       setup(ctx) {
         ctx.contribute("route", { port: "dashboard", method: "GET", path: "/env", handle({ json }) {
           json(200, Object.keys(process.env).filter((name) => /NOTIFY|WATCHDOG|TOKENMAN_ORIGIN/.test(name)));
         } });
       },
     });`,
    );
    const { child, dashboard, ended } = await box.serve("--plugins", "+./curious.ts");
    await told.until(/READY=1/);
    assert.deepEqual(await (await fetch(`${dashboard}/env`)).json(), []);
    child.kill("SIGTERM");
    await ended;
    assert.deepEqual(
      told.messages.map((each) => /\t([A-Z]+)=/.exec(each)?.[1]),
      ["READY", "STOPPING"],
    );
  },
);

test("where there is no systemd-notify that is logged, once, and TokenMan serves", limits, async () => {
  await using box = new Sandbox("[watch]\nenabled = false\n");
  Object.assign(box.env, { NOTIFY_SOCKET: "/manager", WATCHDOG_USEC: "20000", PATH: box.folder });
  const { child, proxy, ended, logged } = await box.serve();
  while (!logged().includes("there is no systemd-notify"))
    await once(child.stderr as NodeJS.EventEmitter, "data");
  assert.equal((await fetch(`${proxy}/health`)).status, 200);
  child.kill("SIGTERM");
  const { status, stderr } = await ended;
  assert.equal(status, 0);
  assert.equal(stderr.split("there is no systemd-notify").length, 2);
});

test("the sample unit says what TokenMan needs", () => {
  const file = join(import.meta.dirname, "..", "..", "configs", "tokenman.service");
  assert.ok(existsSync(file));
  const unit = readFileSync(file, "utf8");
  const value = (key: string) => new RegExp(`^${key}=(.*)$`, "m").exec(unit)?.[1];
  assert.equal(value("Type"), "notify");
  assert.equal(value("NotifyAccess"), "all", "systemd-notify is a process of its own");
  assert.match(value("ExecStart") ?? "", /\/tokenman start --foreground$/);
  assert.match(value("ExecReload") ?? "", /kill -HUP \$MAINPID$/);
  assert.ok(Number(value("TimeoutStopSec")) > 32, "longer than a drain and its last moment");
  assert.match(value("RestartPreventExitStatus") ?? "", /\b78\b/, "a config that is wrong stays wrong");
  assert.match(value("SuccessExitStatus") ?? "", /\b143\b/);
  assert.doesNotMatch(unit, /^MemoryDenyWriteExecute=(yes|true|1)/m, "V8 compiles at run time");
});

test("the sample unit is one that systemd takes", {
  skip: !has("systemd-analyze") && "needs systemd-analyze",
}, async () => {
  await using box = new Sandbox();
  const sample = join(import.meta.dirname, "..", "..", "configs", "tokenman.service");
  // The programs it names must be there to be found; %h is a folder of whoever installs it.
  const unit = readFileSync(sample, "utf8").replace(/^ExecStart=\S+/m, `ExecStart=${process.execPath}`);
  const file = join(box.folder, "tokenman.service");
  writeFileSync(file, unit);
  const { stdout, stderr } = spawnSync("systemd-analyze", ["verify", "--man=no", file], { encoding: "utf8" });
  const about = `${stdout}${stderr}`.split("\n").filter((line) => line.includes("tokenman.service"));
  assert.deepEqual(about, []);
});

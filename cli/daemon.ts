import { spawn } from "node:child_process";
import { closeSync, fchmodSync, fstatSync, openSync, readSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { TokenmanError } from "@tokenman/plugin-sdk";
import type { Invocation } from "./command.ts";
import type { StartMessage } from "./messages.ts";
import { runningInstance } from "./pid-file.ts";
import { prepareDataDir, readSettings } from "./settings.ts";

export interface DaemonOptions {
  readonly config: string | undefined;
  /** As the loader takes it. */
  readonly plugins: string | undefined;
  readonly timeoutMs: number;
  readonly print: Invocation["print"];
  /** The script to run; default: the one that runs now. */
  readonly entry?: string;
}

/** A log over this size is put aside at the next start: TokenMan itself never cuts it while it runs. */
const MAX_LOG_BYTES = 32 * 1024 * 1024;
const MAX_TAIL_BYTES = 8 * 1024;

/**
 * Starts TokenMan as a process of its own and waits until it serves. Where it does not come up, prints what it said and
 * resolves to its exit code. Rejects with TM_ALREADY_RUNNING, TM_START_TIMEOUT, TM_DATA_DIR.
 */
export async function startDaemon(options: DaemonOptions): Promise<number> {
  const { config, plugins, timeoutMs, print, entry = process.argv[1] ?? "" } = options;
  const { server } = readSettings({ config });
  const running = runningInstance(server.data_dir);
  if (running !== undefined) {
    throw new TokenmanError(
      "TM_ALREADY_RUNNING",
      `a TokenMan runs with ${server.data_dir} already (pid ${running.pid}); stop it with "tokenman stop"`,
    );
  }
  prepareDataDir(server.data_dir);
  const logFile = join(server.data_dir, "tokenman.log");
  const log = openLog(logFile);
  const written = fstatSync(log).size;
  const child = spawn(process.execPath, [entry, ...startArguments(config, plugins)], {
    detached: true,
    stdio: ["ignore", log, log, "ipc"],
  });
  closeSync(log);

  const message = await firstMessage(child, timeoutMs);
  if (message === "timeout") {
    child.kill("SIGTERM");
    release(child);
    const said = tail(logFile, written);
    throw new TokenmanError(
      "TM_START_TIMEOUT",
      `TokenMan did not become ready within ${timeoutMs / 1000} s and was stopped; its log is ${logFile}${said}`,
    );
  }
  release(child);
  if (message.kind === "ready") {
    print(`TokenMan is running (pid ${child.pid})`);
    print(`  proxy      ${message.proxy}`);
    print(`  dashboard  ${message.dashboard}`);
    print(`  log        ${logFile}`);
    return 0;
  }
  process.stderr.write(
    `${(message.text === "" ? `it ended without a word${tail(logFile, written)}` : message.text).trimEnd()}\n`,
  );
  return message.exit;
}

function startArguments(config: string | undefined, plugins: string | undefined): string[] {
  return [
    "start",
    "--foreground",
    ...(config === undefined ? [] : [`--config=${config}`]),
    ...(plugins === undefined ? [] : [`--plugins=${plugins === "" ? "none" : plugins}`]),
  ];
}

type Child = ReturnType<typeof spawn>;

function firstMessage(child: Child, timeoutMs: number): Promise<StartMessage | "timeout"> {
  const { promise, resolve } = Promise.withResolvers<StartMessage | "timeout">();
  const timer = setTimeout(() => resolve("timeout"), timeoutMs);
  child.on("message", (message) => resolve(message as StartMessage));
  child.on("error", (error) =>
    resolve({ kind: "failed", text: `it could not be started: ${error.message}`, exit: 69 }),
  );
  // "close" comes after the last message, which "exit" may overtake.
  child.on("close", (code) => resolve({ kind: "failed", text: "", exit: code ?? 70 }));
  return promise.finally(() => clearTimeout(timer));
}

/** Lets this process end while the child lives. */
function release(child: Child): void {
  if (child.connected) child.disconnect();
  child.unref();
}

function openLog(file: string): number {
  try {
    if ((statSync(file, { throwIfNoEntry: false })?.size ?? 0) > MAX_LOG_BYTES) renameSync(file, `${file}.1`);
    const log = openSync(file, "a", 0o600);
    fchmodSync(log, 0o600);
    return log;
  } catch (cause) {
    throw new TokenmanError("TM_DATA_DIR", `${file} cannot be written: ${(cause as Error).message}`, {
      cause,
    });
  }
}

/** What was added to the log from `from` on: its end, where it is long. */
function tail(file: string, from: number): string {
  const log = openSync(file, "r");
  try {
    const { size } = fstatSync(log);
    const start = Math.max(from, size - MAX_TAIL_BYTES);
    const buffer = Buffer.alloc(size - start);
    readSync(log, buffer, 0, buffer.length, start);
    const said = buffer.toString().trimEnd();
    return said === "" ? "" : `:\n${said}`;
  } finally {
    closeSync(log);
  }
}

import { spawn } from "node:child_process";
import { TokenmanError } from "@tokenman/plugin-sdk";
import type { Invocation } from "./command.ts";
import { endChild } from "./end-child.ts";
import { heapFlags } from "./heap.ts";
import { LogFile } from "./log-file.ts";
import type { StartMessage } from "./messages.ts";
import { originVariable } from "./origin.ts";
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
  const log = new LogFile(server.data_dir);
  const child = spawn(process.execPath, [...heapFlags(), entry, ...startArguments(config, plugins)], {
    detached: true,
    stdio: ["ignore", log.fd, log.fd, "ipc"],
    env: { ...process.env, ...originVariable({ background: true }) },
  });
  log.close();

  const message = await firstMessage(child, timeoutMs);
  if (message === "timeout") {
    await endChild(child);
    release(child);
    throw new TokenmanError(
      "TM_START_TIMEOUT",
      `TokenMan did not become ready within ${timeoutMs / 1000} s and was stopped; its log is ${log.path}${log.tail()}`,
    );
  }
  release(child);
  if (message.kind === "ready") {
    print(`TokenMan is running (pid ${child.pid})`);
    print(`  proxy      ${message.proxy}`);
    print(`  dashboard  ${message.dashboard}`);
    print(`  log        ${log.path}`);
    return 0;
  }
  if (message.kind !== "failed") throw new TokenmanError("TM_INTERNAL", `it says "${message.kind}"`);
  process.stderr.write(
    `${(message.text === "" ? `it ended without a word${log.tail()}` : message.text).trimEnd()}\n`,
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

/**
 * The bench's child processes: every one is known by its id from birth and ended by that id, whichever way the
 * bench itself ends.
 */
import { type ChildProcess, fork, spawn } from "node:child_process";
import { get } from "node:http";
import { type AddressInfo, createServer } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

const STOP_MS = 3_000;
const running = new Set<Child>();

export interface Child {
  readonly process: ChildProcess;
  readonly pid: number;
  /** The last few kilobytes of its output, for the reason of a failure. */
  output(): string;
  /** Makes a process that this one has started (a launcher's) end with it. */
  alsoEnd(pid: number): void;
  /** Ends it (SIGTERM, then SIGKILL after 3 s), and resolves when it is gone. */
  stop(): Promise<void>;
  /** Ends it at once, without waiting. */
  kill(): void;
}

export interface SpawnOptions {
  env?: Record<string, string>;
  cwd?: string;
  /** Start through a shell that raises the limit on open files to this, as far as it is allowed. */
  maxFiles?: number;
}

/** Starts a command; its output is kept in memory, the last part of it. */
export function spawnChild(command: string, args: readonly string[], options: SpawnOptions = {}): Child {
  const env = { ...process.env, ...options.env };
  const settings = {
    env,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    stdio: ["ignore", "pipe", "pipe"] as ["ignore", "pipe", "pipe"],
  };
  if (options.maxFiles === undefined) return adopt(spawn(command, args, settings));
  const script = `ulimit -n ${options.maxFiles} 2>/dev/null; exec "$0" "$@"`;
  return adopt(spawn("/bin/sh", ["-c", script, command, ...args], settings));
}

/** Forks a bench module with an IPC channel. */
export function forkChild(module: string, execArgv: readonly string[] = []): Child {
  return adopt(fork(module, [], { execArgv: [...execArgv], stdio: ["ignore", "pipe", "pipe", "ipc"] }));
}

function adopt(child: ChildProcess): Child {
  let output = "";
  const keep = (chunk: Buffer): void => {
    output = (output + chunk.toString("utf8")).slice(-4_096);
  };
  child.stdout?.on("data", keep);
  child.stderr?.on("data", keep);
  child.on("error", (error) => {
    output += `\n${error.message}`;
  });
  const gone = new Promise<void>((resolve) => {
    child.once("exit", () => resolve());
    child.once("error", () => resolve());
  });
  const others: number[] = [];
  const adopted: Child = {
    process: child,
    pid: child.pid ?? 0,
    output: () => output.trim(),
    alsoEnd(pid) {
      if (pid !== child.pid) others.push(pid);
    },
    async stop() {
      if (child.exitCode === null && child.signalCode === null && child.pid !== undefined) {
        child.kill("SIGTERM");
        const force = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
        await gone;
        clearTimeout(force);
      }
      for (const pid of others) kill(pid);
      others.length = 0;
      running.delete(adopted);
    },
    kill() {
      child.kill("SIGKILL");
      for (const pid of others) kill(pid);
    },
  };
  running.add(adopted);
  return adopted;
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended with its launcher, as it should.
  }
}

/** Ends every child that still runs. */
export async function stopAll(): Promise<void> {
  await Promise.all([...running].map((child) => child.stop()));
}

/** Ends the children on every way out of this process, signals included. */
export function endChildrenWithUs(): void {
  process.on("exit", () => {
    for (const child of running) child.kill();
  });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.once(signal, () => {
      stopAll().finally(() => process.exit(130));
    });
  }
}

/** Returns the port that a bench server prints as its first line. */
export function announcedPort(child: Child, timeoutMs = 10_000): Promise<number> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`no port within ${timeoutMs} ms: ${child.output()}`)),
      timeoutMs,
    );
    child.process.stdout?.once("data", (chunk: Buffer) => {
      clearTimeout(timer);
      resolve((JSON.parse(chunk.toString("utf8")) as { port: number }).port);
    });
    child.process.once("exit", (code) => {
      clearTimeout(timer);
      reject(new Error(`ended with code ${code}: ${child.output()}`));
    });
  });
}

/** Returns a loopback port that was free a moment ago. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

/**
 * Waits until GET `path` answers 200, asking every few milliseconds.
 * @throws Error with the child's output where it ends first, or `timeoutMs` pass
 */
export async function waitForHealth(
  child: Child,
  port: number,
  path: string,
  timeoutMs = 20_000,
): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  let last = "no answer";
  while (performance.now() < deadline) {
    if (child.process.exitCode !== null || child.process.signalCode !== null || child.pid === 0)
      throw new Error(`ended before it served: ${lastLines(child.output())}`);
    const status = await statusOf(port, path);
    if (status === 200) return;
    if (status !== undefined) last = `status ${status}`;
    await delay(3);
  }
  throw new Error(`did not serve ${path} within ${timeoutMs} ms (${last}): ${lastLines(child.output())}`);
}

function statusOf(port: number, path: string): Promise<number | undefined> {
  return new Promise((resolve) => {
    const request = get({ port, host: "127.0.0.1", path, agent: false, timeout: 2_000 }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    request.on("timeout", () => request.destroy());
    request.on("error", () => resolve(undefined));
  });
}

function lastLines(text: string): string {
  return text.split("\n").slice(-8).join(" | ").slice(-600);
}

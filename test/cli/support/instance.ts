import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type PidRecord, pidFile } from "../../../cli/pid-file.ts";
import { processIdentity } from "../../../cli/process-identity.ts";

const MAIN = join(import.meta.dirname, "..", "..", "..", "cli", "main.ts");

export interface Result {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A folder with a config file in which the command line is run as a user runs it, each command a process. */
export class Sandbox {
  readonly folder = mkdtempSync(join(tmpdir(), "cli-"));
  readonly dataDir = join(this.folder, "data");
  readonly configFile = join(this.folder, "tokenman.toml");
  readonly env: NodeJS.ProcessEnv;
  readonly #main: string;
  readonly #children = new Set<ChildProcess>();

  /** `main` is the program's entry, by default the sources'. */
  constructor(config = "", env: Readonly<Record<string, string>> = {}, main = MAIN) {
    this.#main = main;
    // Not the user's own settings; a data folder in the sandbox for whatever does not read the config file.
    const inherited = Object.entries(process.env).filter(
      ([name]) => !/^(TOKENMAN_|NODE_TEST|NO_COLOR|FORCE_COLOR)/.test(name),
    );
    this.env = { ...Object.fromEntries(inherited), HOME: this.folder, ...env };
    this.config(config);
  }

  /** What the instance says about itself. Throws where none has ever run, or the last has ended as it should. */
  get record(): PidRecord {
    return JSON.parse(readFileSync(pidFile(this.dataDir), "utf8")) as PidRecord;
  }
  /** What instances in the background have logged. */
  get log(): string {
    return readFileSync(join(this.dataDir, "tokenman.log"), "utf8");
  }

  /** Writes the config file anew, on free ports. */
  config(more: string): void {
    const server = `[server]\nproxy_port = 0\ndashboard_port = 0\ndata_dir = ${JSON.stringify(this.dataDir)}\n`;
    writeFileSync(this.configFile, `${server}${more}`);
  }

  spawn(...args: string[]): ChildProcess {
    const child = spawn(process.execPath, [this.#main, ...args], {
      cwd: this.folder,
      env: this.env,
      stdio: "pipe",
    });
    this.#children.add(child);
    child.once("close", () => this.#children.delete(child));
    return child;
  }

  /** Runs a command with this sandbox's config file to its end. */
  async run(...args: string[]): Promise<Result> {
    return resultOf(this.spawn(...args, "--config", this.configFile));
  }
  async runBare(...args: string[]): Promise<Result> {
    return resultOf(this.spawn(...args));
  }

  /** Starts in the foreground; resolves when it serves. */
  async serve(...args: string[]): Promise<Served> {
    const child = this.spawn("start", "--foreground", "--config", this.configFile, ...args);
    const ended = resultOf(child);
    const { promise, resolve } = Promise.withResolvers<string>();
    let said = "";
    child.stderr?.on("data", (chunk: Buffer) => {
      said += chunk;
      const line = said.split("\n").find((each) => each.includes("TokenMan serves"));
      if (line !== undefined) resolve(line);
    });
    const line = await Promise.race([
      promise,
      ended.then(({ stderr }) => Promise.reject(new Error(`it ended: ${stderr}`))),
    ]);
    const { proxy, dashboard } = JSON.parse(line) as { proxy: string; dashboard: string };
    return { child, proxy, dashboard, ended, logged: () => said };
  }

  /** Ends what still runs, a background instance included, and removes the folder. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#children.size === 0 && existsSync(pidFile(this.dataDir)))
      await this.run("stop", "--timeout", "0");
    for (const child of this.#children) child.kill("SIGKILL");
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export interface Served {
  readonly child: ChildProcess;
  readonly proxy: string;
  readonly dashboard: string;
  readonly ended: Promise<Result>;
  /** What it has written to stderr so far. */
  logged(): string;
}

/** For what other processes do, which tell nobody who is not their parent. Rejects after a minute. */
export async function until(holds: () => boolean): Promise<void> {
  const deadline = performance.now() + 60_000;
  while (!holds()) {
    assert.ok(performance.now() < deadline, `it never came to be: ${holds}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
/** Resolves when there is no such process. */
export const gone = (pid: number): Promise<void> => until(() => processIdentity(pid) === undefined);

function resultOf(child: ChildProcess): Promise<Result> {
  const { promise, resolve } = Promise.withResolvers<Result>();
  let stdout = "";
  let stderr = "";
  child.stdout?.on("data", (chunk: Buffer) => {
    stdout += chunk;
  });
  child.stderr?.on("data", (chunk: Buffer) => {
    stderr += chunk;
  });
  child.once("close", (status) => resolve({ status, stdout, stderr }));
  return promise;
}

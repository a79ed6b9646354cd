import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, watch, writeFileSync } from "node:fs";
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
    return this.#spawn(args);
  }
  #spawn(args: readonly string[], options: { readonly detached?: boolean } = {}): ChildProcess {
    const child = spawn(process.execPath, [this.#main, ...args], {
      cwd: this.folder,
      env: this.env,
      stdio: "pipe",
      ...options,
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
  serve(...args: string[]): Promise<Served> {
    return served(this.spawn("start", "--foreground", "--config", this.configFile, ...args));
  }
  /** The same in a process group of its own, as a shell does it: "Ctrl-C" is a signal to the group. */
  serveInGroup(): Promise<Served> {
    return served(this.#spawn(["start", "--foreground", "--config", this.configFile], { detached: true }));
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
  /** Resolves when `found` is true of that. Rejects where it ends before. */
  says(found: (stderr: string) => boolean): Promise<void>;
}

const PATIENCE_MS = 60_000;

/**
 * Resolves when `holds`, which is asked whenever something in `folder` has changed: a file there is what a process that
 * is nobody's child says anything by. Rejects after a minute.
 */
export async function untilIn(folder: string, holds: () => boolean): Promise<void> {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const watcher = watch(folder);
  try {
    while (!holds()) await once(watcher, "change", { signal });
  } catch (cause) {
    throw signal.aborted ? new Error(`it never came to be: ${holds}`, { cause }) : cause;
  } finally {
    watcher.close();
  }
}

/**
 * Resolves when there is no such process. It polls: the end of a process that is not one's own child is no event in
 * Node, which knows no pidfd. Rejects after a minute.
 */
export async function gone(pid: number): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while (processIdentity(pid) !== undefined) {
    if (performance.now() > deadline) throw new Error(`process ${pid} never ended`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** What a start in the foreground serves. Rejects where it ends before it does. */
async function served(child: ChildProcess): Promise<Served> {
  const ended = resultOf(child);
  let said = "";
  const looks = new Set<() => void>();
  child.stderr?.on("data", (chunk: Buffer) => {
    said += chunk;
    for (const look of looks) look();
  });
  const says = async (found: (stderr: string) => boolean): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const look = () => found(said) && resolve();
    looks.add(look);
    look();
    const early = ended.then(({ stderr }) => Promise.reject(new Error(`it ended: ${stderr}`)));
    await Promise.race([promise, early]).finally(() => looks.delete(look));
  };
  const ready = () =>
    said.split("\n").find((line, at, all) => at < all.length - 1 && line.includes("TokenMan serves"));
  await says(() => ready() !== undefined);
  const { proxy, dashboard } = JSON.parse(ready() as string) as { proxy: string; dashboard: string };
  return { child, proxy, dashboard, ended, logged: () => said, says };
}

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

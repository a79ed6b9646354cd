import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { TokenmanError } from "@tokenman/plugin-sdk";
import type { ProcessRef } from "./origin.ts";
import { processIdentity } from "./process-identity.ts";

/** What a running TokenMan says about itself in DATA_DIR/tokenman.pid. */
export interface PidRecord extends ProcessRef {
  readonly pid: number;
  /** See {@link processIdentity}. */
  readonly identity: string;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly version: string;
  readonly configFile: string | undefined;
  /** Undefined until it listens. */
  readonly bootId: string | undefined;
  /** Base URLs. */
  readonly proxy: string | undefined;
  readonly dashboard: string | undefined;
  /** Whether SIGUSR2 makes it hand over to a new process. To a version that does not know that, the signal is deadly. */
  readonly handsOver: boolean;
  /** Processes that handed over to this one and still finished their requests then. */
  readonly before: readonly ProcessRef[];
}

/** The right to run with a data folder, held from before the start until the end. */
export interface PidClaim {
  /** This process. */
  readonly self: ProcessRef;
  /** Adds what is known once it listens. Throws TM_ALREADY_RUNNING where another start took the claim meanwhile. */
  complete(facts: Pick<PidRecord, "bootId" | "proxy" | "dashboard">): void;
  /** Says again that this process is the instance, where one that was to follow it is gone. */
  reclaim(): void;
  /** Removes the file, if it is still this process's. */
  release(): void;
}

export function pidFile(dataDir: string): string {
  return join(dataDir, "tokenman.pid");
}

/** The record of the instance that runs with `dataDir`; undefined where none runs, whatever a stale file says. */
export function runningInstance(dataDir: string): PidRecord | undefined {
  const record = readRecord(pidFile(dataDir));
  return record !== undefined && isAlive(record) ? record : undefined;
}

/** Whether the very process that wrote the record still runs. A stranger that has its number now does not count. */
export function isAlive({ pid, identity }: ProcessRef): boolean {
  return processIdentity(pid) === identity;
}

/** Sends a signal to the recorded process, and to no other. False where it is gone. */
export function signalInstance(record: ProcessRef, signal: NodeJS.Signals): boolean {
  if (!isAlive(record)) return false;
  try {
    return process.kill(record.pid, signal);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ESRCH") return false;
    throw new TokenmanError(
      "TM_NOT_RUNNING",
      `process ${record.pid} is another user's: ${(cause as Error).message}`,
      {
        cause,
      },
    );
  }
}

/**
 * Writes this process's record, in the place of a stale one if need be. The successor of the process that runs with the
 * folder takes its place only when it listens itself. Throws TM_ALREADY_RUNNING where another TokenMan runs with the
 * folder, and TM_DATA_DIR where the file cannot be written.
 */
export function claimPidFile(
  dataDir: string,
  facts: Pick<PidRecord, "version" | "configFile">,
  successor?: { readonly of: number; readonly before: readonly ProcessRef[] },
): PidClaim {
  const file = pidFile(dataDir);
  const identity = processIdentity(process.pid);
  if (identity === undefined)
    throw new TokenmanError("TM_INTERNAL", "this process's start time cannot be read");
  let own: PidRecord = {
    pid: process.pid,
    identity,
    startedAt: Date.now(),
    bootId: undefined,
    proxy: undefined,
    dashboard: undefined,
    handsOver: false,
    before: successor?.before ?? [],
    ...facts,
  };
  const running = successor && runningInstance(dataDir);
  const predecessor = running?.pid === successor?.of ? running : undefined;
  // Twice: the file may be stale, or its owner may end in between.
  for (let tries = 2; predecessor === undefined; tries--) {
    if (createRecord(file, own)) break;
    const other = readRecord(file);
    if (other !== undefined && isAlive(other)) throw alreadyRunning(dataDir, other);
    if (tries === 0) throw new TokenmanError("TM_DATA_DIR", `${file} cannot be replaced`);
    rmSync(file, { force: true });
  }
  return {
    self: { pid: own.pid, identity },
    complete(more) {
      const now = readRecord(file);
      // Two starts may both have found the same stale file; the later claim holds.
      const isOurs =
        now === undefined || isSame(now, own) || (predecessor !== undefined && isSame(now, predecessor));
      if (!isOurs && isAlive(now)) throw alreadyRunning(dataDir, now);
      own = { ...own, ...more, handsOver: true, before: own.before.filter(isAlive) };
      write(file, own);
    },
    reclaim() {
      const now = readRecord(file);
      if (now === undefined || !isAlive(now)) write(file, own);
    },
    release() {
      const now = readRecord(file);
      if (now !== undefined && isSame(now, own)) rmSync(file, { force: true });
    },
  };
}

function write(file: string, record: PidRecord): void {
  const next = `${file}.${process.pid}`;
  writeFileSync(next, render(record), { mode: 0o600 });
  renameSync(next, file);
}

function isSame(left: ProcessRef, right: ProcessRef): boolean {
  return left.pid === right.pid && left.identity === right.identity;
}

function alreadyRunning(dataDir: string, { pid, dashboard }: PidRecord): TokenmanError {
  const where = dashboard === undefined ? "" : `, dashboard ${dashboard}`;
  return new TokenmanError(
    "TM_ALREADY_RUNNING",
    `a TokenMan runs with ${dataDir} already (pid ${pid}${where}); stop it with "tokenman stop", or use another server.data_dir`,
  );
}

/** Creates the file with its whole content at once, so that no reader sees half of it. False where there is one. */
function createRecord(file: string, record: PidRecord): boolean {
  const draft = `${file}.${process.pid}`;
  try {
    writeFileSync(draft, render(record), { mode: 0o600 });
    try {
      linkSync(draft, file);
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === "EEXIST") return false;
      // A file system without hard links.
      writeFileSync(file, render(record), { mode: 0o600, flag: "wx" });
    }
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw new TokenmanError("TM_DATA_DIR", `${file} cannot be written: ${(cause as Error).message}`, {
      cause,
    });
  } finally {
    rmSync(draft, { force: true });
  }
}

function render(record: PidRecord): string {
  return `${JSON.stringify(record, undefined, 2)}\n`;
}

/** Undefined where there is no file, or it is not a record: a reader must not fail over what a crash left behind. */
function readRecord(file: string): PidRecord | undefined {
  try {
    const value = JSON.parse(readFileSync(file, "utf8")) as Partial<PidRecord> | null;
    if (typeof value?.pid !== "number" || typeof value.identity !== "string") return undefined;
    const text = (each: unknown) => (typeof each === "string" ? each : undefined);
    return {
      pid: value.pid,
      identity: value.identity,
      startedAt: typeof value.startedAt === "number" ? value.startedAt : 0,
      version: text(value.version) ?? "",
      configFile: text(value.configFile),
      bootId: text(value.bootId),
      proxy: text(value.proxy),
      dashboard: text(value.dashboard),
      handsOver: value.handsOver === true,
      before: Array.isArray(value.before) ? value.before.filter(isRef) : [],
    };
  } catch {
    return undefined;
  }
}

function isRef(value: unknown): value is ProcessRef {
  const { pid, identity } = (value ?? {}) as Partial<ProcessRef>;
  return typeof pid === "number" && typeof identity === "string";
}

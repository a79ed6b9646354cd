/** What is measured: how each subject is started, addressed, read and ended. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";

import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { transformSync } from "esbuild";
import { announcedPort, type Child, spawnChild, waitForHealth } from "./children.ts";
import { installPortkey, portkeyHeaders, startPortkey } from "./portkey.ts";
import { PROBE_FOLDER, type ProbeAnswer } from "./probe.ts";
import { cpuTime, listenerPid, type Memory, memory, resetPeak } from "./proc.ts";
import type { BenchDialect } from "./replies.ts";
import { startTokenman } from "./tokenman.ts";

export const SUBJECTS = [
  "floor",
  "kernel",
  "ledger",
  "resilience",
  "saving",
  "cache",
  "default",
  "portkey",
] as const;
export type SubjectName = (typeof SUBJECTS)[number];

export interface Place {
  /** The project's root. */
  root: string;
  /** A temporary folder of this run. */
  scratch: string;
  upstreamPort: number;
  dialect: BenchDialect;
  maxFiles?: number;
}

/**
 * Makes glibc keep the memory it has. Without it, whether each 520 KB buffer is fresh pages from the kernel is a lottery
 * that one process wins for its whole life and the next one loses: the same proxy then differs from itself by half.
 */
const STEADY_HEAP = "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=268435456";

/** CPU and loop time of a subject since its start, in microseconds. */
export interface Reading {
  cpuUs: number;
  /** CPU of the main thread. */
  mainUs: number;
  /** Wall time the event loop was busy; undefined where the probe could not be loaded. */
  loopUs: number | undefined;
}

export interface Subject {
  readonly name: SubjectName | "direct";
  readonly port: number;
  readonly headers: [string, string][];
  /** Whether its replies must be the upstream's bytes. */
  readonly exact: boolean;
  /** From the start of its process to the first 200. */
  readonly startupMs: number;
  read(): Promise<Reading>;
  memory(): Memory;
  resetPeak(): void;
  stop(): Promise<void>;
}

/** The upstream itself, without a proxy: what the added latency is added to. */
export function direct(upstreamPort: number): Subject {
  return {
    name: "direct",
    port: upstreamPort,
    headers: [],
    exact: true,
    startupMs: 0,
    read: async () => ({ cpuUs: 0, mainUs: 0, loopUs: undefined }),
    memory: () => ({ rssBytes: 0, peakBytes: 0 }),
    resetPeak() {},
    async stop() {},
  };
}

let starts = 0;

/**
 * Starts a subject and waits until it serves; with `steadyHeap` for CPU readings, without for memory readings.
 * @throws Error with the reason where it cannot be started; whatever was started is ended
 */
export async function startSubject(name: SubjectName, place: Place, steadyHeap: boolean): Promise<Subject> {
  const folder = join(place.scratch, `${name}-${starts++}`);
  mkdirSync(folder, { recursive: true });
  const probe = pathToFileURL(plainProbe(folder)).href;
  const env = {
    NODE_OPTIONS: `--import=${probe}`,
    [PROBE_FOLDER]: folder,
    ...(steadyHeap ? { GLIBC_TUNABLES: STEADY_HEAP } : {}),
  };
  // What has to be installed or compiled once is no part of a start.
  const script = name === "portkey" ? installPortkey(place.root) : join(import.meta.dirname, "floor.ts");
  const started = performance.now();
  const { child, port } = await startProcess(name, script, place, folder, env);
  try {
    await waitForHealth(child, port, name === "portkey" ? "/" : "/health");
    const startupMs = performance.now() - started;
    const pid = listenerPid(port) ?? child.pid;
    child.alsoEnd(pid);
    return subjectOf(name, child, pid, port, folder, startupMs, place);
  } catch (error) {
    await child.stop();
    throw error;
  }
}

/** The probe without its types: to strip them, each thread of a subject would load a compiler, 15 MB apiece. */
function plainProbe(folder: string): string {
  const file = join(folder, "probe.mjs");
  const source = readFileSync(join(import.meta.dirname, "probe.ts"), "utf8");
  writeFileSync(file, transformSync(source, { loader: "ts", format: "esm" }).code);
  return file;
}

async function startProcess(
  name: SubjectName,
  script: string,
  place: Place,
  folder: string,
  env: Record<string, string>,
): Promise<{ child: Child; port: number }> {
  const { root, dialect, upstreamPort } = place;
  const limit = place.maxFiles === undefined ? {} : { maxFiles: place.maxFiles };
  if (name === "portkey") {
    if (dialect !== "openai") throw new Error("the bench drives Portkey in the openai dialect only");
    return startPortkey(script, env);
  }
  if (name === "floor") {
    const child = spawnChild(process.execPath, [script, String(upstreamPort)], { env, ...limit });
    return { child, port: await announcedPort(child) };
  }
  return startTokenman({ root, variant: name, dialect, upstreamPort, folder, env, ...limit });
}

function subjectOf(
  name: SubjectName,
  child: Child,
  pid: number,
  port: number,
  folder: string,
  startupMs: number,
  place: Place,
): Subject {
  let asked = 0;
  const hasProbe = existsSync(join(folder, `${pid}.ready`));
  return {
    name,
    port,
    headers: name === "portkey" ? portkeyHeaders(place.upstreamPort) : [],
    exact: name !== "portkey",
    startupMs,
    async read() {
      // The probe is asked first before a cell and after it, so that its own cost is the same in every reading.
      const loopUs = hasProbe ? await busyUs(pid, join(folder, `${pid}-${asked++}.json`)) : undefined;
      const { totalUs, mainUs } = cpuTime(pid);
      return { cpuUs: totalUs, mainUs, loopUs };
    },
    memory: () => memory(pid),
    resetPeak: () => resetPeak(pid),
    async stop() {
      await child.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function busyUs(pid: number, answer: string): Promise<number | undefined> {
  process.kill(pid, "SIGWINCH");
  for (let waited = 0; waited < 1_000; waited += 2) {
    if (existsSync(answer)) {
      const { activeMs } = JSON.parse(readFileSync(answer, "utf8")) as ProbeAnswer;
      return activeMs * 1_000;
    }
    await delay(2);
  }
  return undefined;
}

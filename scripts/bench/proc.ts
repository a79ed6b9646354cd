/** Readings of another process from /proc (Linux): CPU, memory, and who listens on a port. */
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";

export interface CpuTime {
  /** Time on a processor of all threads, in microseconds. */
  totalUs: number;
  /** Of it, the main thread's, where the event loop runs. */
  mainUs: number;
}

/**
 * CPU time of a process to the nanosecond, summed over its threads' scheduler statistics
 * (/proc/PID/task/TID/schedstat, first field); /proc/PID/stat counts in ticks of 10 ms, too coarse for one cell.
 * Threads that have ended are not in it.
 */
export function cpuTime(pid: number): CpuTime {
  let totalNs = 0;
  let mainNs = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    try {
      const ns = Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "latin1").split(" ", 1)[0]);
      totalNs += ns;
      if (thread === String(pid)) mainNs = ns;
    } catch (error) {
      if (!isGone(error)) throw error;
    }
  }
  return { totalUs: totalNs / 1_000, mainUs: mainNs / 1_000 };
}

export interface Memory {
  /** Resident set now, in bytes. */
  rssBytes: number;
  /** Its peak since the start or the last `resetPeak`, in bytes. */
  peakBytes: number;
}

export function memory(pid: number): Memory {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  const field = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]) * 1_024;
  return { rssBytes: field("VmRSS"), peakBytes: field("VmHWM") };
}

/** Sets the peak back to the present size, so that start-up (compiling) does not hide the load's peak. */
export function resetPeak(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/clear_refs`, "5");
  } catch {
    // Not allowed in every container; the peak then includes the start-up, which is the stricter reading.
  }
}

/** Returns the id of the process that listens on a loopback port; a launcher's child has another id than the launcher. */
export function listenerPid(port: number): number | undefined {
  const wanted = port.toString(16).toUpperCase().padStart(4, "0");
  const inodes = new Set<string>();
  for (const table of ["/proc/net/tcp", "/proc/net/tcp6"]) {
    for (const line of readText(table).split("\n").slice(1)) {
      const fields = line.trim().split(/\s+/);
      if (fields[3] === "0A" && fields[1]?.endsWith(`:${wanted}`)) inodes.add(`socket:[${fields[9]}]`);
    }
  }
  if (inodes.size === 0) return undefined;
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      for (const fd of readdirSync(`/proc/${pid}/fd`)) {
        if (inodes.has(readlinkSync(`/proc/${pid}/fd/${fd}`))) return Number(pid);
      }
    } catch {
      // The process ended meanwhile, or is somebody else's.
    }
  }
  return undefined;
}

function readText(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

function isGone(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code;
  return code === "ENOENT" || code === "ESRCH";
}

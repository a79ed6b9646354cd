import type { ChildProcess } from "node:child_process";
import { once } from "node:events";

const KILL_MS = 2_000;

/** Ends a process that this one started, and resolves when it has: one that loops for ever does not hear SIGTERM. */
export async function endChild(child: ChildProcess): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), KILL_MS);
  await ended;
  clearTimeout(timer);
}

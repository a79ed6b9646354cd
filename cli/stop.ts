import { setTimeout as delay } from "node:timers/promises";
import { TokenmanError } from "@tokenman/plugin-sdk";
import type { Invocation } from "./command.ts";
import type { ProcessRef } from "./origin.ts";
import { isAlive, runningInstance, signalInstance } from "./pid-file.ts";
import { settingsInSpite } from "./settings.ts";
import { seconds } from "./value.ts";

/** How long an instance gets to end after it was told not to wait for its requests. */
const FORCED_MS = 5_000;
const POLL_MS = 50;

/**
 * `tokenman stop`: SIGTERM, and after the bound another one, which ends it without waiting for its requests. Processes
 * that have handed over to it and still finish requests are stopped with it.
 */
export async function stop({ options, print }: Invocation): Promise<number> {
  const { server } = settingsInSpite(options);
  const bound = seconds(options["timeout"], "--timeout", 30);
  const instance = runningInstance(server.data_dir);
  if (instance === undefined || !signalInstance(instance, "SIGTERM")) {
    throw new TokenmanError("TM_NOT_RUNNING", `no TokenMan runs with ${server.data_dir}`);
  }
  const all: readonly ProcessRef[] = [instance, ...instance.before];
  for (const each of instance.before) signalInstance(each, "SIGTERM");
  if (await ended(all, bound)) {
    print(`stopped (pid ${instance.pid})`);
    return 0;
  }
  for (const each of all) signalInstance(each, "SIGTERM");
  if (await ended(all, FORCED_MS)) {
    print(`stopped (pid ${instance.pid}); requests that took longer than ${bound / 1000} s were cut`);
    return 0;
  }
  const left = all.filter(isAlive).map(({ pid }) => pid);
  throw new TokenmanError(
    "TM_INTERNAL",
    `process ${left.join(", ")} did not end; "kill -9 ${left.join(" ")}" will end it`,
  );
}

/** Nobody tells a process that is not the parent, so it has to look. */
async function ended(processes: readonly ProcessRef[], withinMs: number): Promise<boolean> {
  const until = performance.now() + withinMs;
  while (processes.some(isAlive)) {
    if (performance.now() >= until) return false;
    await delay(POLL_MS);
  }
  return true;
}

import { setTimeout as delay } from "node:timers/promises";
import { TokenmanError } from "@tokenman/plugin-sdk";
import type { Invocation } from "./command.ts";
import { isAlive, type PidRecord, runningInstance, signalInstance } from "./pid-file.ts";
import { readSettings } from "./settings.ts";
import { seconds } from "./value.ts";

/** How long an instance gets to end after it was told not to wait for its requests. */
const FORCED_MS = 5_000;
const POLL_MS = 50;

/** `tokenman stop`: SIGTERM, and after the bound another one, which ends it without waiting for its requests. */
export async function stop({ options, print }: Invocation): Promise<number> {
  const { server } = readSettings(options);
  const bound = seconds(options["timeout"], "--timeout", 30);
  const instance = runningInstance(server.data_dir);
  if (instance === undefined || !signalInstance(instance, "SIGTERM")) {
    throw new TokenmanError("TM_NOT_RUNNING", `no TokenMan runs with ${server.data_dir}`);
  }
  if (await ended(instance, bound)) {
    print(`stopped (pid ${instance.pid})`);
    return 0;
  }
  signalInstance(instance, "SIGTERM");
  if (await ended(instance, FORCED_MS)) {
    print(`stopped (pid ${instance.pid}); requests that took longer than ${bound / 1000} s were cut`);
    return 0;
  }
  throw new TokenmanError(
    "TM_INTERNAL",
    `process ${instance.pid} did not end; "kill -9 ${instance.pid}" will end it`,
  );
}

/** Nobody tells a process that is not the parent, so it has to look. */
async function ended(instance: PidRecord, withinMs: number): Promise<boolean> {
  const until = performance.now() + withinMs;
  while (isAlive(instance)) {
    if (performance.now() >= until) return false;
    await delay(POLL_MS);
  }
  return true;
}

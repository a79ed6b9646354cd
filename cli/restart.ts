import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { TokenmanError } from "@tokenman/plugin-sdk";
import type { Invocation } from "./command.ts";
import { isAlive, type PidRecord, runningInstance, signalInstance } from "./pid-file.ts";
import { type RestartAnswer, takeAnswer, withdrawRequest, writeRequest } from "./restart-request.ts";
import { settingsInSpite } from "./settings.ts";
import { seconds } from "./value.ts";

const POLL_MS = 50;
/** What the instance takes beyond the new process's time to be ready. */
const GRACE_MS = 15_000;

/**
 * `tokenman restart`: a new process takes the ports over, then the old one finishes its requests. 0 where the new one
 * serves; else the exit code of what went wrong with it, and the old one serves on.
 */
export async function restart({ options, print }: Invocation): Promise<number> {
  const { server, broken } = settingsInSpite(options);
  const timeoutMs = seconds(options["timeout"], "--timeout", 30);
  const drainMs = seconds(options["drain"], "--drain", 3_600);
  const instance = runningInstance(server.data_dir);
  if (instance === undefined) {
    throw new TokenmanError(
      "TM_NOT_RUNNING",
      `no TokenMan runs with ${server.data_dir}; start it with "tokenman start"`,
    );
  }
  if (!instance.handsOver) {
    throw new TokenmanError(
      "TM_NOT_RUNNING",
      instance.bootId === undefined
        ? `the TokenMan with pid ${instance.pid} is still starting`
        : `the TokenMan that runs (${instance.version}, pid ${instance.pid}) cannot hand over; use "tokenman stop" and "tokenman start"`,
    );
  }
  // What is wrong has been told. Of a file that parses, the new process finds out what else is.
  if (broken !== undefined) {
    process.stderr.write(`not restarted: pid ${instance.pid} serves on\n`);
    return broken.exit;
  }
  const answer = await ask(server.data_dir, instance, timeoutMs, drainMs);
  if (!answer.ok) {
    const rest = answer.stopping === true ? "ends" : "serves on";
    process.stderr.write(`${answer.text}\nnot restarted: pid ${instance.pid} ${rest}\n`);
    return answer.exit;
  }
  const { pid, version, proxy, dashboard, inFlight } = answer;
  print(`TokenMan was restarted (version ${version}, pid ${pid})`);
  print(`  proxy      ${proxy}`);
  print(`  dashboard  ${dashboard}`);
  print(
    inFlight === 0
      ? `  before     pid ${instance.pid} has no requests left`
      : `  before     pid ${instance.pid} finishes ${inFlight} requests`,
  );
  return 0;
}

async function ask(
  dataDir: string,
  instance: PidRecord,
  timeoutMs: number,
  drainMs: number,
): Promise<RestartAnswer> {
  const id = randomUUID();
  writeRequest(dataDir, {
    id,
    pid: instance.pid,
    at: Date.now(),
    execPath: process.execPath,
    entry: process.argv[1] as string,
    timeoutMs,
    drainMs,
  });
  try {
    signalInstance(instance, "SIGUSR2");
    const until = performance.now() + timeoutMs + GRACE_MS;
    while (performance.now() < until) {
      const lives = isAlive(instance);
      const answer = takeAnswer(dataDir, id);
      if (answer !== undefined) return answer;
      if (!lives)
        throw new TokenmanError("TM_NOT_RUNNING", `the TokenMan with pid ${instance.pid} has ended`);
      // Nobody tells a process that is not the parent, so it has to look.
      await delay(POLL_MS);
    }
  } finally {
    withdrawRequest(dataDir, id);
  }
  throw new TokenmanError(
    "TM_NOT_RUNNING",
    `the TokenMan with pid ${instance.pid} does not answer; its log may say why`,
  );
}

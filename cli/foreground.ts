import type { Kernel } from "../kernel/kernel.ts";
import { describeFailure } from "./failure.ts";
import { tuneHeap } from "./heap.ts";
import { RunningInstance } from "./instance.ts";
import { Line } from "./line.ts";
import { atLevelOf, createLog } from "./log.ts";
import { tellStarter } from "./messages.ts";
import { takeOrigin } from "./origin.ts";
import { claimPidFile } from "./pid-file.ts";
import { plannedSections } from "./planned.ts";
import { Predecessor } from "./predecessor.ts";
import { firstParty } from "./registry.ts";
import { Restarter } from "./restarter.ts";
import { ServiceManager } from "./service-manager.ts";
import { prepareDataDir, readSettings } from "./settings.ts";
import { Signals } from "./signals.ts";
import { VERSION } from "./version.ts";

export interface ForegroundOptions {
  readonly config: string | undefined;
  /** As the loader takes it. */
  readonly plugins: string | undefined;
}

/** How long requests in flight may take after SIGTERM or SIGINT. */
const DRAIN_MS = 30_000;

/**
 * Runs TokenMan in this process until a signal ends it, and resolves to the exit code. Rejects where it cannot start:
 * then nothing is left behind but the data folder.
 */
export async function runForeground(options: ForegroundOptions): Promise<number> {
  try {
    return await run(options);
  } catch (error) {
    const { text, exit } = describeFailure(error);
    await tellStarter({ kind: "failed", text, exit });
    throw error;
  }
}

async function run({ config, plugins }: ForegroundOptions): Promise<number> {
  tuneHeap();
  const origin = takeOrigin(process.env);
  const predecessor = origin.successor ? new Predecessor() : undefined;
  const { raw, server } = readSettings({ config });
  let kernel: Kernel | undefined;
  const output = createLog(server.log_level);
  const log = atLevelOf(output, () => kernel?.config.server.log_level);
  const manager = ServiceManager.take(process.env, log);
  prepareDataDir(server.data_dir);
  const claim = claimPidFile(
    server.data_dir,
    { version: VERSION, configFile: raw.file },
    predecessor && { of: predecessor.pid, before: origin.before },
  );
  const abandon = () => {
    claim.release();
    output.flush();
  };
  const signals = new Signals({ log, drainMs: DRAIN_MS, abandon });
  try {
    // The kernel is only in memory where it runs.
    const { createKernel } = await import("../kernel/kernel.ts");
    kernel = await createKernel({
      version: VERSION,
      ...(config !== undefined && { configFile: config }),
      env: process.env,
      registry: firstParty,
      ...(plugins !== undefined && { pluginsFlag: plugins }),
      log,
      planned: plannedSections,
      opensPorts: predecessor === undefined,
    });
    const { proxyAddress, dashboardAddress } = await kernel.start(await predecessor?.sockets());
    const addresses = { proxy: proxyAddress, dashboard: dashboardAddress };
    const restarter = new Restarter({
      dataDir: server.data_dir,
      origin,
      kernel,
      claim,
      manager,
      log,
      stopDrainMs: DRAIN_MS,
      keep: (successors) => signals.passOn(successors),
      done: () => signals.done(),
    });
    signals.watch(new RunningInstance(kernel, restarter, manager));
    await predecessor?.serving({ ...addresses, version: VERSION });
    claim.complete({ bootId: kernel.bootId, ...addresses });
    // Whoever waits for the process in the foreground does so no longer when that has ended.
    const line = origin.line === undefined ? undefined : new Line(origin.line, () => signals.stop("SIGTERM"));
    line?.say(claim.self);
    log.info({ ...addresses, config: raw.file, version: VERSION }, "TokenMan serves");
    if (predecessor === undefined) await tellStarter({ kind: "ready", ...addresses, version: VERSION });
    else await predecessor.installed();
    void manager?.ready(`serving ${proxyAddress}`);
    manager?.watch();
    const code = await signals.ended;
    if (!restarter.handedOver) line?.say({ exit: code });
    return code;
  } finally {
    abandon();
  }
}

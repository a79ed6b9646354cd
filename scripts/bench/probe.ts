/**
 * Preloaded into a subject (`NODE_OPTIONS=--import`): on SIGWINCH, which nobody else uses, it writes how long the main event loop has been
 * busy since the start, as a JSON file that appears whole. Costs nothing between signals.
 */
import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { isMainThread } from "node:worker_threads";

/** The environment variable that names the folder of the answers. */
export const PROBE_FOLDER = "TOKENMAN_BENCH_PROBE";

export interface ProbeAnswer {
  /** Milliseconds the loop spent on anything but waiting for events. */
  activeMs: number;
}

const folder = process.env[PROBE_FOLDER];
if (folder !== undefined && isMainThread) {
  let answers = 0;
  process.on("SIGWINCH", () => {
    const answer: ProbeAnswer = { activeMs: performance.eventLoopUtilization().active };
    const file = join(folder, `${process.pid}-${answers++}.json`);
    writeFileSync(`${file}.part`, JSON.stringify(answer));
    renameSync(`${file}.part`, file);
  });
  writeFileSync(join(folder, `${process.pid}.ready`), "");
}

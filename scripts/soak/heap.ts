import v8 from "node:v8";
import vm from "node:vm";
import type { Logger } from "@tokenman/plugin-sdk";

v8.setFlagsFromString("--expose-gc");
const collectGarbage = vm.runInNewContext("gc") as () => void;

/** Bytes in use when there is nothing left to collect; the finalizers have run. */
export async function settledHeap(): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  // What a collection frees may hold on to something else, and code goes only when it was unused for several.
  for (let idle = 0; idle < 5; ) {
    await new Promise((resolve) => setTimeout(resolve, 25));
    collectGarbage();
    const { heapUsed } = process.memoryUsage();
    if (heapUsed < least * 0.999) idle = 0;
    else idle++;
    least = Math.min(least, heapUsed);
  }
  return least;
}

/** Says nothing. */
export const QUIET: Logger = { trace() {}, debug() {}, info() {}, warn() {}, error() {} };

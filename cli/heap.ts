import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/**
 * Bodies live outside V8's heap. By default every 64 MB of them cost a full collection of the heap, although the young
 * collections have freed nearly all of it already: measured with 820 KB bodies, 1.7 ms of CPU a request in place of 0.6.
 * Counted together with the heap they do not. To be called before traffic; a V8 that does not know the flag ignores it.
 */
export function tuneHeap(): void {
  // V8 13 (Node 24) does not have it, and would say so on stderr.
  if (Number(process.versions.v8.split(".", 1)[0]) >= 14) {
    setFlagsFromString("--external-memory-accounted-in-global-limit");
  }
}

/** How long it must have been quiet. */
const QUIET_MS = 3_000;

/** V8's own function, once it is exposed. */
type Collect = (how: { type: "major"; execution: "sync"; flavor: "last-resort" }) => void;

/** The most of its time that a loop is busy which nobody needs at present. */
const QUIET_SHARE = 0.05;

/**
 * Gives back what starting took, once: a start makes much garbage, and the room for it would stay as long as nothing
 * happens. Measured: 15 of 123 MB. The collection holds the loop up for some tens of milliseconds, so it waits for a while
 * in which next to nothing ran, and for `isIdle` at its end. Keeps no process alive.
 */
export function trimHeapOnce(isIdle: () => boolean): void {
  const before = performance.eventLoopUtilization();
  setTimeout(() => {
    const { utilization } = performance.eventLoopUtilization(before);
    if (utilization < QUIET_SHARE && isIdle()) trimHeap();
    else trimHeapOnce(isIdle);
  }, QUIET_MS).unref();
}

function trimHeap(): void {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as Collect;
  setFlagsFromString("--no-expose-gc");
  collect({ type: "major", execution: "sync", flavor: "last-resort" });
}

import { monitorEventLoopDelay } from "node:perf_hooks";

/** The finest there is: with a coarser one, an idle loop seems to be late by it. */
const RESOLUTION_MS = 1;

/** How late the event loop is, over the last whole window. */
export class LoopDelay {
  readonly #monitor = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  /** Seconds; undefined until the first window has ended. */
  window: { readonly p50: number; readonly p99: number; readonly max: number } | undefined;

  constructor() {
    this.#monitor.enable();
  }
  /** Ends the window and begins the next. */
  turn(): void {
    if (this.#monitor.count === 0) return;
    const seconds = (nanoseconds: number): number =>
      Math.max(0, Math.round(nanoseconds / 1e3 - RESOLUTION_MS * 1e3) / 1e6);
    this.window = {
      p50: seconds(this.#monitor.percentile(50)),
      p99: seconds(this.#monitor.percentile(99)),
      max: seconds(this.#monitor.max),
    };
    this.#monitor.reset();
  }
  stop(): void {
    this.#monitor.disable();
  }
}

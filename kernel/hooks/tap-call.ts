import { AsyncLocalStorage } from "node:async_hooks";
import { type HookClock, startClock } from "./clock.ts";
import type { PluginHandle } from "./plugin-handle.ts";

/** The exchange that calls are about. It knows those that have not ended in the turn in which they began. */
export interface CallOwner {
  readonly id: string;
  enter(call: TapCall): void;
  leave(call: TapCall): void;
}

/** A function that a plugin tapped. */
export interface Tapped<F> {
  readonly plugin: PluginHandle;
  readonly hook: string;
  readonly fn: F;
  /**
   * How many of its next calls are to be known behind an `await`. That costs a third of a microsecond a call, so a function
   * that is not asynchronous goes without until it returns a promise, and again when it has returned none for a while.
   */
  traced: number;
}

/** Calls that are traced after one that returned a promise. */
const TRACED = 100;

export function tapped<F extends object>(plugin: PluginHandle, hook: string, fn: F): Tapped<F> {
  return {
    plugin,
    hook,
    fn,
    traced: (fn as Partial<Record<symbol, unknown>>)[Symbol.toStringTag] === "AsyncFunction" ? TRACED : 0,
  };
}
/** Notes whether a call has returned a promise. */
export function traceNext(target: Tapped<unknown>, promised: boolean): void {
  if (promised) target.traced = TRACED;
  else if (target.traced > 0) target.traced--;
}

/**
 * One call of a tapped function. What it asks of the exchange is done in its name, also behind its awaits, and refused
 * once it is over: a call that was given up may go on for as long as it likes.
 */
export class TapCall {
  readonly plugin: PluginHandle;
  readonly hook: string;
  readonly exchangeId: string;
  over = false;
  #clock: HookClock | undefined;
  #waitsInVain = false;
  #abandon: (() => void) | undefined;
  #holds = 0;

  constructor({ plugin, hook }: Tapped<unknown>, exchangeId: string) {
    this.plugin = plugin;
    this.hook = hook;
    this.exchangeId = exchangeId;
  }

  /** Runs the function and returns what it returns, or throws what it throws. */
  run(target: Tapped<unknown>, call: () => unknown): unknown {
    const outer = running;
    running = this;
    try {
      return target.traced > 0 ? context.run(this, call) : call();
    } finally {
      running = outer;
    }
  }
  /** From now on its time runs, unless it is in `ex.wait` already. `abandon` is called where it waits in vain. */
  limit(ms: number, expired: () => void, abandon: () => void): void {
    this.#clock = startClock(ms, expired);
    if (this.#holds > 0) this.#clock.hold();
    this.#abandon = abandon;
    if (this.#waitsInVain) abandon();
  }
  /** Its time stands still until as many calls of `go`. */
  hold(): void {
    if (this.#holds++ === 0) this.#clock?.hold();
  }
  go(): void {
    if (--this.#holds === 0) this.#clock?.go();
  }
  /** It is in `ex.wait`, and nobody wants the answer any more: it is not waited for, and that is no fault of its. */
  waitInVain(): void {
    this.#waitsInVain = true;
    this.#abandon?.();
  }
  end(): void {
    this.over = true;
    this.#clock?.stop();
    // What the function started, a connection say, may keep this in its context for as long as it lives.
    this.#clock = undefined;
    this.#abandon = undefined;
  }
}

const context = new AsyncLocalStorage<TapCall>();
/** The call on the stack; behind an `await` it is found in the asynchronous context. */
let running: TapCall | undefined;

/** The call in which the asking code runs; undefined outside of any, and in a callback that lost its way to it. */
export function currentCall(): TapCall | undefined {
  return running ?? context.getStore();
}

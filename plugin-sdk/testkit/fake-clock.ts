/** How many turns of the event loop the work that a timer set off is given before the next timer is looked at. */
const TURNS = 3;

interface FakeTimer {
  readonly id: number;
  readonly run: () => void;
  readonly delayMs: number;
  readonly repeats: boolean;
  dueAt: number;
}

const REAL = {
  setTimeout: globalThis.setTimeout,
  clearTimeout: globalThis.clearTimeout,
  setInterval: globalThis.setInterval,
  clearInterval: globalThis.clearInterval,
  Date: globalThis.Date,
};
const realImmediate = globalThis.setImmediate;

/**
 * Time under a test's control, from its making to `restore` (or the end of a `using` block). Nothing moves but by
 * `advance`.
 *
 * It controls the globals of this thread: `setTimeout`, `setInterval` and their clears, `Date`, `performance.now`; and
 * so `ctx.every`, hook time-outs, and whatever a plugin times with them. It does not control: sockets, files and
 * promises, which go on by themselves; `setImmediate`; time-outs inside Node (of its HTTP servers, `AbortSignal.timeout`);
 * `node:timers/promises`; workers and child processes; references to the globals taken before. There can be only one at
 * a time.
 */
export class FakeClock {
  static #current: FakeClock | undefined;
  readonly #timers = new Map<number, FakeTimer>();
  readonly #realNow = performance.now;
  #now: number;
  #elapsed = 0;
  #count = 0;

  /** `now`: milliseconds since the epoch. */
  constructor(options: { readonly now?: number | Date } = {}) {
    if (FakeClock.#current !== undefined) throw new Error("there is a FakeClock already: restore it first");
    FakeClock.#current = this;
    this.#now = Number(options.now ?? REAL.Date.now());
    this.#install();
  }

  /** What `Date.now()` says. */
  get now(): number {
    return this.#now;
  }
  /** Timers that have not fired. */
  get pending(): number {
    return this.#timers.size;
  }
  /**
   * Lets time pass: timers fire in the order in which they are due, each at its time, and what they set off runs before
   * the next one, as far as it does not wait for anything outside.
   */
  async advance(ms: number): Promise<void> {
    const until = this.#elapsed + ms;
    await this.settle();
    for (let timer = this.#next(until); timer !== undefined; timer = this.#next(until)) {
      this.#moveTo(timer.dueAt);
      if (timer.repeats) timer.dueAt = this.#elapsed + timer.delayMs;
      else this.#timers.delete(timer.id);
      timer.run();
      await this.settle();
    }
    this.#moveTo(until);
  }
  /** Lets what is ready run, without time passing. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < TURNS; turn++) await new Promise((resolve) => realImmediate(resolve));
  }
  /** The wall clock jumps, and no time passes: what a machine does that is set or wakes up. */
  jump(ms: number): void {
    this.#now += ms;
  }
  /** Puts the real clock back. Timers that have not fired never will. */
  restore(): void {
    if (FakeClock.#current !== this) return;
    FakeClock.#current = undefined;
    Object.assign(globalThis, REAL);
    performance.now = this.#realNow;
    this.#timers.clear();
  }
  [Symbol.dispose](): void {
    this.restore();
  }

  #next(until: number): FakeTimer | undefined {
    let next: FakeTimer | undefined;
    for (const timer of this.#timers.values())
      if (timer.dueAt <= until && (next === undefined || timer.dueAt < next.dueAt)) next = timer;
    return next;
  }
  #moveTo(elapsed: number): void {
    this.#now += elapsed - this.#elapsed;
    this.#elapsed = elapsed;
  }
  #install(): void {
    const add =
      (repeats: boolean) =>
      (run: (...args: unknown[]) => void, ms?: number, ...args: unknown[]) =>
        this.#handle({ run: () => run(...args), delayMs: Math.max(1, Number(ms) || 1), repeats });
    const clear = (handle: unknown): void => {
      this.#timers.delete(Number(handle));
      // One made before the clock came.
      if (typeof handle === "object") REAL.clearTimeout(handle as NodeJS.Timeout);
    };
    Object.assign(globalThis, {
      setTimeout: add(false),
      setInterval: add(true),
      clearTimeout: clear,
      clearInterval: clear,
      Date: this.#date(),
    });
    const start = this.#realNow.call(performance);
    performance.now = () => start + this.#elapsed;
  }
  #handle(options: Omit<FakeTimer, "id" | "dueAt">): object {
    const timer: FakeTimer = { ...options, id: ++this.#count, dueAt: this.#elapsed + options.delayMs };
    this.#timers.set(timer.id, timer);
    const close = (): void => void this.#timers.delete(timer.id);
    const handle = {
      ref: () => handle,
      unref: () => handle,
      hasRef: () => true,
      close,
      refresh: () => {
        timer.dueAt = this.#elapsed + timer.delayMs;
        this.#timers.set(timer.id, timer);
        return handle;
      },
      [Symbol.toPrimitive]: () => timer.id,
      [Symbol.dispose]: close,
    };
    return handle;
  }
  #date(): DateConstructor {
    const now = (): number => this.#now;
    return class FakeDate extends REAL.Date {
      static override now(): number {
        return now();
      }
      constructor(...args: readonly unknown[]) {
        super(...((args.length === 0 ? [now()] : args) as [number]));
      }
    } as DateConstructor;
  }
}

/** What a clock in fractions of milliseconds may be short of, when its time has come. */
const TOLERANCE = 1e-6;
const MAX_TIMER_MS = 2 ** 31 - 1;

/** How fast a bucket fills, and how much it holds. */
export interface Rate {
  readonly perSecond: number;
  readonly burst: number;
}

/** One that waits for its turn. */
export interface Waiter {
  /** True when it has been served, false when it was called off. Never rejects. */
  readonly served: Promise<boolean>;
  /** Leaves the queue. Does nothing once it has been served. */
  leave(): void;
}

interface Queued {
  readonly amount: number;
  readonly resolve: (served: boolean) => void;
}

/**
 * A token bucket with a queue: who asked first is served first, and nobody overtakes those who wait. Time is monotonic.
 * What is asked for beyond the bucket's size needs a full one and leaves a debt.
 */
export class Bucket {
  readonly #now: () => number;
  #rate: Rate;
  #level: number;
  #at: number;
  /** In the order of arrival. */
  readonly #queue = new Set<Queued>();
  #timer: NodeJS.Timeout | undefined;

  constructor(rate: Rate, now: () => number = () => performance.now()) {
    this.#rate = rate;
    this.#now = now;
    this.#level = rate.burst;
    this.#at = now();
  }

  get rate(): Rate {
    return this.#rate;
  }
  /** What may be taken now; negative is a debt. */
  get level(): number {
    this.#fill();
    return this.#level;
  }
  get waiting(): number {
    return this.#queue.size;
  }
  /** What is in it stays, as far as the new size allows. */
  configure(rate: Rate): void {
    this.#fill();
    this.#rate = rate;
    this.#level = Math.min(this.#level, rate.burst);
    this.#serve();
  }

  /** Milliseconds until `amount` could be taken by one that asks now; 0 is at once. */
  delayMs(amount: number): number {
    this.#fill();
    let needed = this.#needs(amount) - this.#level;
    for (const queued of this.#queue) needed += queued.amount;
    return needed <= TOLERANCE ? 0 : this.#fillMs(needed);
  }
  /** Takes it, whether it is there or not: whoever does not wait has looked at the delay before. */
  take(amount: number): void {
    this.#fill();
    this.#level -= amount;
  }
  /** Puts back what was not used; a negative amount takes what was used beyond. */
  give(amount: number): void {
    this.#fill();
    this.#level = Math.min(this.#level + amount, this.#rate.burst);
    this.#serve();
  }
  /** Waits in the queue, and takes `amount` when it is its turn. */
  wait(amount: number): Waiter {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const queued: Queued = { amount, resolve };
    this.#queue.add(queued);
    this.#serve();
    return {
      served: promise,
      leave: () => {
        if (!this.#queue.delete(queued)) return;
        resolve(false);
        this.#serve();
      },
    };
  }
  /** Sends everybody away. */
  close(): void {
    clearTimeout(this.#timer);
    for (const { resolve } of this.#queue) resolve(false);
    this.#queue.clear();
  }

  #needs(amount: number): number {
    return Math.min(amount, this.#rate.burst);
  }
  /** Milliseconds, to the microsecond: what a fraction is off must not make a second of a millisecond. */
  #fillMs(amount: number): number {
    return Math.round((amount / this.#rate.perSecond) * 1e6) / 1e3;
  }
  #fill(): void {
    const now = this.#now();
    this.#level = Math.min(this.#rate.burst, this.#level + ((now - this.#at) / 1_000) * this.#rate.perSecond);
    this.#at = now;
  }
  #serve(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#fill();
    for (const queued of this.#queue) {
      const missing = this.#needs(queued.amount) - this.#level;
      if (missing > TOLERANCE) {
        const ms = Math.max(1, Math.ceil(this.#fillMs(missing)));
        this.#timer = setTimeout(() => this.#serve(), Math.min(ms, MAX_TIMER_MS));
        return;
      }
      this.#level -= queued.amount;
      this.#queue.delete(queued);
      queued.resolve(true);
    }
  }
}

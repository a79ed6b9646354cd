import type { BudgetWindow, Exchange, ReplyInit } from "@tokenman/plugin-sdk";
import type { Tally } from "./books.ts";

/** The windows of some limits, as they are now, with what is known of each. */
export interface WindowSet {
  readonly windows: readonly BudgetWindow[];
  /** The same, with limits out of reach: reservations without a price must not be refused. */
  readonly unlimited: readonly BudgetWindow[];
  readonly tallies: readonly Tally[];
  /** While it is what the limits' windows are: milliseconds since the epoch, from inclusive, to exclusive. */
  readonly from: number;
  readonly to: number;
}

/** One reservation, from the moment at which it is asked for. */
export class Hold {
  /** While it is not answered. */
  exchange: Exchange | undefined;
  readonly id: string;
  readonly nanoUsd: number;
  readonly set: WindowSet;
  /** The amount is a bound: nobody has counted. */
  readonly isBound: boolean;
  /** Why the exchange has to be refused; undefined once the reservation is committed. Never rejects. */
  readonly refusal: Promise<ReplyInit | undefined>;
  #resolve!: (refusal: ReplyInit | undefined) => void;
  state: "asked" | "granted" | "refused" = "asked";
  /** What it is settled with; an exchange may end before its reservation is through. */
  spent: number | undefined;
  /** Monotonic milliseconds: when it is refused unless there was an answer. */
  readonly deadline: number;
  /** Among those that wait for their answers. */
  next: Hold | undefined;

  constructor(
    exchange: Exchange,
    id: string,
    nanoUsd: number,
    set: WindowSet,
    isBound: boolean,
    deadline: number,
  ) {
    this.exchange = exchange;
    this.id = id;
    this.nanoUsd = nanoUsd;
    this.set = set;
    this.isBound = isBound;
    this.deadline = deadline;
    this.refusal = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  grant(): void {
    this.state = "granted";
    this.exchange = undefined;
    this.#resolve(undefined);
  }
  refuse(refusal: ReplyInit): void {
    this.state = "refused";
    this.exchange = undefined;
    this.#resolve(refusal);
  }
}

/**
 * Those that wait for their answers, in the order in which they were asked for. One timer for all, and none while nobody
 * waits long: it is on the way of every request.
 */
export class Waiting {
  readonly #expired: (hold: Hold) => void;
  #first: Hold | undefined;
  #last: Hold | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(expired: (hold: Hold) => void) {
    this.#expired = expired;
  }

  add(hold: Hold): void {
    if (this.#last === undefined) this.#first = hold;
    else this.#last.next = hold;
    this.#last = hold;
    this.#timer ??= this.#arm(hold);
  }
  /** Forgets those that have been answered, which are the first, mostly. */
  answered(): void {
    while (this.#first !== undefined && this.#first.state !== "asked") {
      const { next } = this.#first;
      // What is over must not keep alive what came after it.
      this.#first.next = undefined;
      this.#first = next;
    }
    if (this.#first === undefined) this.#last = undefined;
  }

  #arm(hold: Hold): NodeJS.Timeout {
    return setTimeout(() => this.#fire(), Math.max(1, hold.deadline - performance.now())).unref();
  }
  #fire(): void {
    const now = performance.now();
    for (let hold = this.#first; hold !== undefined && hold.deadline <= now + 1; hold = hold.next)
      if (hold.state === "asked") this.#expired(hold);
    this.answered();
    this.#timer = this.#first === undefined ? undefined : this.#arm(this.#first);
  }
}

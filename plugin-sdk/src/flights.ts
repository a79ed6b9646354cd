/**
 * Single flight: of requests with the same key only the first goes upstream, and its reply is streamed to all of them as
 * it arrives. Any of them may leave at any time, the first one included.
 */
import type { Attempt, Exchange } from "./exchange.ts";
import type { Reply, ReplyInit, SharedReply } from "./reply.ts";

/** What TokenMan refuses with when a provider fails: those who wait would fare no better, one after the other. */
const UPSTREAM = /^TM_UPSTREAM_/;

/** A request on its way upstream, and those who wait for its reply. */
export class Flight {
  readonly key: string;
  /** The next one in the table's chain. */
  next: Flight | undefined;
  #leader: Exchange | undefined;
  #release: (() => void) | undefined;
  #waiting = 0;
  #wake: (() => void)[] | undefined;
  #shared: SharedReply | undefined;
  #attempt: Attempt | undefined;
  #refusal: Reply["refusal"];
  #over = false;

  constructor(key: string, leader: Exchange) {
    this.key = key;
    this.#leader = leader;
  }

  /** The reply as it is shared, and the attempt that it comes from; undefined before it came, and where it is not shared. */
  get shared(): SharedReply | undefined {
    return this.#shared;
  }
  get attempt(): Attempt | undefined {
    return this.#attempt;
  }

  /**
   * The leader's reply has come: call it in its `response` hook. What a provider answered is shared; with an error that
   * is TokenMan's own and the provider's doing, those who wait are refused as well; after any other reply, which says
   * something about the leader alone, they are on their own.
   */
  land(reply: Reply, maxBytes: number): void {
    if (this.#over || this.#shared !== undefined) return;
    const isWanted = this.#waiting > 0 || reply.status === 200;
    if (reply.origin === "provider" && reply.attempt !== undefined && isWanted) {
      this.#shared = reply.share({ maxBytes });
      this.#attempt = reply.attempt;
    } else if (reply.refusal !== undefined && UPSTREAM.test(reply.refusal.code))
      this.#refusal = reply.refusal;
    else this.#over = true;
    this.#wakeAll();
  }
  /**
   * The leader has settled. Whoever still waits is on its own. Nothing is held any more: a flight that was long under way
   * has come into the old generation of the heap, and would keep all of its exchange there.
   */
  end(): void {
    this.#over = true;
    this.#shared = undefined;
    this.#attempt = undefined;
    this.#refusal = undefined;
    this.#leader = undefined;
    this.#wakeAll();
  }

  /**
   * The reply for another exchange with the same request: at once where the leader's has begun, else as soon as it does.
   * Undefined where there is none to be had here (any more).
   */
  follow(exchange: Exchange): ReplyInit | Promise<ReplyInit | undefined> | undefined {
    if (this.#over) return undefined;
    if (this.#shared !== undefined) return this.#isGood(this.#shared) ? this.#shared.join() : undefined;
    if (this.#refusal !== undefined) return exchange.refuse(this.#refusal);
    return this.#wait(exchange);
  }
  async #wait(exchange: Exchange): Promise<ReplyInit | undefined> {
    const { signal } = exchange;
    this.#waiting++;
    // The leader's client may leave: its request goes on for those who wait.
    this.#release ??= this.#leader?.retain();
    try {
      await exchange.wait(this.#landed(signal));
    } finally {
      this.#waiting--;
      if (this.#waiting === 0) this.#letGo();
    }
    if (signal.aborted) return undefined;
    // Whoever waited for it gets it, whatever it is.
    return this.#shared?.join() ?? this.follow(exchange);
  }
  /** Whether those who come now are given it: an error, or a stream that turned out one, is only for those who waited. */
  #isGood({ status }: SharedReply): boolean {
    const attempt = this.#attempt;
    if (status !== 200 || attempt === undefined || this.#leader === undefined) return false;
    if (attempt.result === undefined) return attempt.streamError === undefined;
    return isWhole(this.#leader, attempt);
  }
  #landed(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      this.#wake ??= [];
      this.#wake.push(resolve);
      signal.addEventListener("abort", () => resolve(), { once: true });
    });
  }
  #wakeAll(): void {
    const waiting = this.#wake;
    this.#wake = undefined;
    if (waiting !== undefined) for (const wake of waiting) wake();
  }
  #letGo(): void {
    const release = this.#release;
    this.#release = undefined;
    if (release === undefined) return;
    // Once landed, those who waited begin to follow in the microtasks of this turn; before that, they have all left.
    if (this.#shared === undefined) release();
    else setImmediate(release);
  }
}

/**
 * Whether an attempt brought a complete answer: a stream with its regular end, or a whole reply with its usage (an error in
 * a 200 has none); with at least one token, as nobody wants to be told the same nothing again.
 */
export function isWhole(exchange: Exchange, { result, terminal, streamError, usage }: Attempt): boolean {
  if (result?.kind !== "reply" || result.body !== "complete" || streamError !== undefined) return false;
  if (terminal === false) return false;
  const { dialect } = exchange;
  if (dialect?.generates !== true) return true;
  if (terminal === undefined && usage?.complete !== true) return false;
  return usage === undefined || usage.outputTokens > 0 || dialect.outputText === undefined;
}

const BUCKETS = 1_024;

/**
 * The flights under way, by key. A fixed array of chains, and not a Map: the tables that a Map outgrows stay behind in
 * the old generation of the heap, with all that was under way at the time.
 */
export class Flights {
  readonly #buckets: (Flight | undefined)[] = new Array<Flight | undefined>(BUCKETS).fill(undefined);
  #size = 0;

  get size(): number {
    return this.#size;
  }
  find(key: string): Flight | undefined {
    let flight = this.#buckets[bucketOf(key)];
    while (flight !== undefined && flight.key !== key) flight = flight.next;
    return flight;
  }
  /** The exchange's request goes upstream. Others find it where `isShared`, and until it lands on nobody else. */
  begin(key: string, leader: Exchange, isShared: boolean): Flight {
    const flight = new Flight(key, leader);
    if (isShared) {
      const earlier = this.find(key);
      if (earlier !== undefined) this.#remove(earlier);
      const bucket = bucketOf(key);
      flight.next = this.#buckets[bucket];
      this.#buckets[bucket] = flight;
      this.#size++;
    }
    return flight;
  }
  end(flight: Flight): void {
    this.#remove(flight);
    flight.end();
  }
  #remove(flight: Flight): void {
    const bucket = bucketOf(flight.key);
    let before: Flight | undefined;
    for (let each = this.#buckets[bucket]; each !== undefined; each = each.next) {
      if (each === flight) {
        if (before === undefined) this.#buckets[bucket] = flight.next;
        else before.next = flight.next;
        flight.next = undefined;
        this.#size--;
        return;
      }
      before = each;
    }
  }
}

/** Keys are digests: a few characters tell them apart. */
function bucketOf(key: string): number {
  let hash = 0;
  for (let index = 0; index < 4; index++) hash = (hash * 31 + (key.charCodeAt(index) || 0)) | 0;
  return (hash >>> 0) % BUCKETS;
}

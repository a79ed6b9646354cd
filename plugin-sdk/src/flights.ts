/**
 * Single flight: of requests with the same key only the first goes upstream, and its reply is streamed to all of them as
 * it arrives. Any of them may leave at any time, the first one included.
 */
import type { AnswerKey } from "./answer-key.ts";
import type { Attempt, Exchange } from "./exchange.ts";
import type { Reply, ReplyInit, SharedReply } from "./reply.ts";

/** What TokenMan refuses with when a provider fails: those who wait would fare no better, one after the other. */
const UPSTREAM = /^TM_UPSTREAM_/;

/** What a flight has for an exchange with the same request. */
export interface Joined {
  readonly reply: ReplyInit;
  /** Whose reply it is; undefined for an error of TokenMan's own. */
  readonly attempt: Attempt | undefined;
}

/** How a flight landed: with a reply to share, an error for all, or nothing for others. */
interface Landed {
  readonly shared?: SharedReply;
  readonly attempt?: Attempt;
  readonly refusal?: NonNullable<Reply["refusal"]>;
}
const NOTHING: Landed = Object.freeze({});

/** A request on its way upstream, and those who wait for its reply. */
export class Flight {
  readonly key: AnswerKey;
  /** How many had begun before it in its table. */
  readonly number: number;
  /** The next one in the table's chain. */
  next: Flight | undefined;
  #leader: Exchange | undefined;
  #release: (() => void) | undefined;
  #waiting = 0;
  #wake: ((landed: Landed) => void)[] | undefined;
  #landed: Landed | undefined;

  constructor(key: AnswerKey, number: number, leader: Exchange) {
    this.key = key;
    this.number = number;
    this.#leader = leader;
  }

  /** The reply as it is shared, and the attempt that it comes from; undefined before it came, and where it is not shared. */
  get shared(): SharedReply | undefined {
    return this.#landed?.shared;
  }
  get attempt(): Attempt | undefined {
    return this.#landed?.attempt;
  }

  /**
   * The leader's reply has come: call it in its `response` hook. What a provider answered is shared; with an error that
   * is TokenMan's own and the provider's doing, those who wait are refused as well; after any other reply, which says
   * something about the leader alone, they are on their own.
   */
  land(reply: Reply, maxBytes: number): void {
    if (this.#landed !== undefined) return;
    const { refusal, attempt } = reply;
    const isWanted = this.#waiting > 0 || reply.status === 200;
    if (reply.origin === "provider" && attempt !== undefined && isWanted)
      this.#land({ shared: reply.share({ maxBytes }), attempt });
    else if (refusal !== undefined && UPSTREAM.test(refusal.code)) this.#land({ refusal });
    else this.#land(NOTHING);
  }
  /**
   * The leader has settled. Whoever comes now is on its own. Nothing is held any more: a flight that was long under way
   * has come into the old generation of the heap, and would keep all of its exchange there.
   */
  end(): void {
    this.#land(NOTHING);
    this.#leader = undefined;
  }

  /**
   * The reply for another exchange with the same request: at once where the leader's has begun, else as soon as it does.
   * Undefined where there is none to be had here (any more).
   */
  follow(exchange: Exchange): Joined | Promise<Joined | undefined> | undefined {
    const landed = this.#landed;
    if (landed === undefined) return this.#wait(exchange);
    return this.#isGood(landed) ? join(landed, exchange) : undefined;
  }
  async #wait(exchange: Exchange): Promise<Joined | undefined> {
    const { signal } = exchange;
    this.#waiting++;
    // The leader's client may leave: its request goes on for those who wait.
    this.#release ??= this.#leader?.retain();
    try {
      const landed = await exchange.wait(this.#whenLanded(signal));
      // Whoever waited gets it, whatever it is, and even where the leader has settled meanwhile.
      return signal.aborted ? undefined : join(landed, exchange);
    } finally {
      this.#waiting--;
      if (this.#waiting === 0) this.#letGo();
    }
  }
  /** Whether those who come now are given it: an error, or a stream that turned out one, is only for those who waited. */
  #isGood({ shared, attempt }: Landed): boolean {
    if (shared?.status !== 200 || attempt === undefined || this.#leader === undefined) return false;
    return attempt.result === undefined ? attempt.streamError === undefined : isWhole(this.#leader, attempt);
  }
  #whenLanded(signal: AbortSignal): Promise<Landed> {
    return new Promise((resolve) => {
      this.#wake ??= [];
      this.#wake.push(resolve);
      signal.addEventListener("abort", () => resolve(NOTHING), { once: true });
    });
  }
  #land(landed: Landed): void {
    this.#landed = landed;
    const waiting = this.#wake;
    this.#wake = undefined;
    if (waiting !== undefined) for (const wake of waiting) wake(landed);
  }
  #letGo(): void {
    const release = this.#release;
    this.#release = undefined;
    if (release === undefined) return;
    // Once landed, those who waited begin to follow in the microtasks of this turn; before that, they have all left.
    if (this.#landed === undefined) release();
    else setImmediate(release);
  }
}

function join({ shared, attempt, refusal }: Landed, exchange: Exchange): Joined | undefined {
  if (refusal !== undefined) return { reply: exchange.refuse(refusal), attempt: undefined };
  const reply = shared?.join();
  return reply === undefined ? undefined : { reply, attempt };
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
  #begun = 0;

  /** How many have begun so far, ended ones included. */
  get begun(): number {
    return this.#begun;
  }
  get size(): number {
    return this.#size;
  }
  find(key: AnswerKey): Flight | undefined {
    let flight = this.#buckets[bucketOf(key)];
    while (flight !== undefined && !flight.key.equals(key)) flight = flight.next;
    return flight;
  }
  /** The exchange's request goes upstream. Others find it where `isShared`, and until it lands on nobody else. */
  begin(key: AnswerKey, leader: Exchange, isShared: boolean): Flight {
    const flight = new Flight(key, this.#begun++, leader);
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

function bucketOf({ hash }: AnswerKey): number {
  return hash & (BUCKETS - 1);
}

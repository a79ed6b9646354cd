/** Tokens that a provider's bucket holds at most, and begins with. */
const CAPACITY = 100;
/** Tokens that come back without any traffic, so that a single agent is never without. */
const PER_SECOND = 10;

interface Bucket {
  tokens: number;
  /** Milliseconds, monotonic. */
  at: number;
}

/**
 * How often each provider may be asked again: a share of the requests that are sent to it, and a few a second beside. A
 * provider that fails them all then gets that share more traffic, and not a multiple of it. The first request to another
 * provider is not counted: it adds nothing to the load of the one that failed.
 */
export class RetryBudget {
  readonly #buckets = new Map<string, Bucket>();
  readonly #now: () => number;

  /** `now`: monotonic milliseconds. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }
  /** A request goes to the provider for the first time; `share` of one more may follow. */
  sent(provider: string, share: number): void {
    const bucket = this.#bucket(provider);
    bucket.tokens = Math.min(CAPACITY, bucket.tokens + share);
  }
  /** Whether it may be sent again. Counts it, if so. */
  take(provider: string): boolean {
    const bucket = this.#bucket(provider);
    const now = this.#now();
    bucket.tokens = Math.min(CAPACITY, bucket.tokens + ((now - bucket.at) / 1_000) * PER_SECOND);
    bucket.at = now;
    if (bucket.tokens < 1) return false;
    bucket.tokens--;
    return true;
  }
  #bucket(provider: string): Bucket {
    let bucket = this.#buckets.get(provider);
    if (bucket === undefined) {
      bucket = { tokens: CAPACITY, at: this.#now() };
      this.#buckets.set(provider, bucket);
    }
    return bucket;
  }
}

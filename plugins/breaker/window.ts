const BUCKETS = 10;

interface Bucket {
  /** Which tenth of a window, counted from the clock's zero. */
  index: number;
  calls: number;
  failures: number;
}

/** Counts calls and failures of the last while, in tenths of it: a sum is taken over ten numbers, whatever the traffic. */
export class SlidingWindow {
  readonly #bucketMs: number;
  #buckets: Bucket[] = [];

  constructor(windowMs: number) {
    this.#bucketMs = windowMs / BUCKETS;
  }
  /** `now`: monotonic milliseconds. */
  add(now: number, failed: boolean): void {
    const index = Math.floor(now / this.#bucketMs);
    let bucket = this.#buckets.at(-1);
    if (bucket === undefined || bucket.index !== index) {
      bucket = { index, calls: 0, failures: 0 };
      this.#buckets.push(bucket);
      if (this.#buckets.length > BUCKETS) this.#buckets.shift();
    }
    bucket.calls++;
    if (failed) bucket.failures++;
  }
  sum(now: number): { readonly calls: number; readonly failures: number } {
    const from = Math.floor(now / this.#bucketMs) - BUCKETS;
    let calls = 0;
    let failures = 0;
    for (const bucket of this.#buckets) {
      if (bucket.index <= from) continue;
      calls += bucket.calls;
      failures += bucket.failures;
    }
    return { calls, failures };
  }
  clear(): void {
    this.#buckets = [];
  }
}

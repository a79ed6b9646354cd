import { Bucket, type Rate } from "./bucket.ts";

/** Projects are named by clients: beyond so many buckets, those that are full and idle are forgotten. */
const MAX_BUCKETS = 2_000;

/** What is counted in a bucket: requests, or tokens. */
export type Unit = "requests" | "tokens";

interface Entry {
  readonly bucket: Bucket;
  /** Generation whose config it follows. */
  generation: number;
}

/**
 * The buckets by scope ("provider:NAME", "model:GLOB", "project:NAME"). They outlive reloads with what is in them. The
 * one place to change where many instances are to share them.
 */
export class Buckets {
  readonly #entries = new Map<string, Entry>();

  /** The bucket of a scope. An older generation's exchange does not bring its old rate back. */
  get(scope: string, unit: Unit, rate: Rate, generation: number): Bucket {
    const key = `${unit} ${scope}`;
    const found = this.#entries.get(key);
    if (found === undefined) {
      if (this.#entries.size >= MAX_BUCKETS) this.#forget();
      const bucket = new Bucket(rate);
      this.#entries.set(key, { bucket, generation });
      return bucket;
    }
    if (generation > found.generation) {
      found.generation = generation;
      if (!same(found.bucket.rate, rate)) found.bucket.configure(rate);
    }
    return found.bucket;
  }

  /** A new generation serves: whoever waits is to wait by its rates. `rateOf` gives undefined for what it does not know. */
  configure(generation: number, rateOf: (scope: string, unit: Unit) => Rate | undefined): void {
    for (const [key, { generation: known }] of this.#entries) {
      if (known >= generation) continue;
      const space = key.indexOf(" ");
      const [unit, scope] = [key.slice(0, space) as Unit, key.slice(space + 1)];
      const rate = rateOf(scope, unit);
      if (rate !== undefined) this.get(scope, unit, rate, generation);
    }
  }

  close(): void {
    for (const { bucket } of this.#entries.values()) bucket.close();
    this.#entries.clear();
  }

  #forget(): void {
    for (const [key, { bucket }] of this.#entries)
      if (bucket.waiting === 0 && bucket.level >= bucket.rate.burst) this.#entries.delete(key);
  }
}

function same(left: Rate, right: Rate): boolean {
  return left.perSecond === right.perSecond && left.burst === right.burst;
}

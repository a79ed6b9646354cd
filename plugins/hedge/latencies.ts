/** Times of the last attempts that a percentile is taken of, and how many it takes for it to mean anything. */
const SAMPLES = 100;
const ENOUGH = 20;
/** Models are named by clients: the one that was asked for first is forgotten first. */
const MAX_KEYS = 500;

interface Ring {
  readonly times: number[];
  /** Where the next one goes, once there are enough. */
  next: number;
  p95: number | undefined;
}

/** How long it took until something came, by whatever key. Milliseconds. Kept over reloads. */
export class Latencies {
  readonly #rings = new Map<string, Ring>();

  add(key: string, ms: number): void {
    let ring = this.#rings.get(key);
    if (ring === undefined) {
      if (this.#rings.size >= MAX_KEYS) this.#rings.delete(this.#rings.keys().next().value!);
      ring = { times: [], next: 0, p95: undefined };
      this.#rings.set(key, ring);
    }
    ring.times[ring.next] = ms;
    ring.next = (ring.next + 1) % SAMPLES;
    ring.p95 = undefined;
  }

  /** The time that 95 of 100 attempts of late stayed within; undefined while there are too few. */
  p95(key: string): number | undefined {
    const ring = this.#rings.get(key);
    if (ring === undefined || ring.times.length < ENOUGH) return undefined;
    if (ring.p95 === undefined) {
      const sorted = ring.times.toSorted((left, right) => left - right);
      ring.p95 = sorted[Math.ceil(sorted.length * 0.95) - 1];
    }
    return ring.p95;
  }
}

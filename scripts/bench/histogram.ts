/**
 * A latency histogram with fixed relative precision: values are whole microseconds, exact below
 * 512, and above that kept in 256 sub-buckets per power of two, so that a percentile is at most
 * 0.4 % too high, whatever the spread. Recording is one array increment: no sort, no growth.
 */
const EXACT = 512;
const SUB_BUCKETS = 256;
const SUB_BITS = 8;
/** Up to 2^37 microseconds (about 38 hours). */
const OCTAVES = 28;

export class Histogram {
  readonly #counts = new Float64Array(EXACT + OCTAVES * SUB_BUCKETS);
  #count = 0;
  #sum = 0;
  #max = 0;

  get count(): number {
    return this.#count;
  }

  /** Arithmetic mean in microseconds, from the values as recorded; 0 when empty. */
  get mean(): number {
    return this.#count === 0 ? 0 : this.#sum / this.#count;
  }

  /** The greatest value in microseconds, exact; 0 when empty. */
  get max(): number {
    return this.#max;
  }

  /** Counts one value in microseconds; fractions are rounded, negatives count as 0. */
  record(microseconds: number): void {
    const value = microseconds > 0 ? Math.round(microseconds) : 0;
    this.#count++;
    this.#sum += value;
    if (value > this.#max) this.#max = value;
    const index = Math.min(bucketOf(value), this.#counts.length - 1);
    this.#counts[index] = (this.#counts[index] ?? 0) + 1;
  }

  /**
   * The smallest recorded value (as its bucket's upper edge, never above `max`) that at least
   * `percent` of all values do not exceed, in microseconds; 0 when empty.
   */
  percentile(percent: number): number {
    if (this.#count === 0) return 0;
    const wanted = Math.max(1, Math.ceil((percent / 100) * this.#count));
    let seen = 0;
    for (let index = 0; index < this.#counts.length; index++) {
      seen += this.#counts[index] ?? 0;
      if (seen >= wanted) return Math.min(upperEdge(index), this.#max);
    }
    return this.#max;
  }
}

function bucketOf(value: number): number {
  if (value < EXACT) return value;
  const shift = 31 - Math.clz32(Math.floor(value / 2 ** SUB_BITS));
  const sub = Math.floor(value / 2 ** shift) - SUB_BUCKETS;
  return EXACT + (shift - 1) * SUB_BUCKETS + sub;
}

function upperEdge(index: number): number {
  if (index < EXACT) return index;
  const shift = Math.floor((index - EXACT) / SUB_BUCKETS) + 1;
  const sub = (index - EXACT) % SUB_BUCKETS;
  return (sub + SUB_BUCKETS + 1) * 2 ** shift - 1;
}

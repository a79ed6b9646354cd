import type { MetricSample } from "@tokenman/plugin-sdk";

/** Counts values by upper bound. Memory and time are bounded by the number of bounds. */
export class Histogram {
  readonly #bounds: readonly number[];
  readonly #counts: Float64Array;
  #sum = 0;

  /** `bounds` rise; what is above the last is counted under +Inf. */
  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = new Float64Array(bounds.length + 1);
  }

  observe(value: number): void {
    const bounds = this.#bounds;
    let at = 0;
    while (at < bounds.length && value > bounds[at]!) at++;
    this.#counts[at]!++;
    this.#sum += value;
  }

  /** Prometheus' buckets are cumulative: each counts what the ones below it count, too. */
  *samples(labels: Readonly<Record<string, string>> = {}): Generator<MetricSample> {
    let count = 0;
    for (let at = 0; at < this.#counts.length; at++) {
      count += this.#counts[at]!;
      const bound = this.#bounds[at];
      yield {
        suffix: "_bucket",
        labels: { ...labels, le: bound === undefined ? "+Inf" : String(bound) },
        value: count,
      };
    }
    yield { suffix: "_sum", labels, value: this.#sum };
    yield { suffix: "_count", labels, value: count };
  }
}

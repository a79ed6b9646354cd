/** How many replies of a model are looked back on, and which share of them the expectation covers. */
const REPLIES = 64;
const QUANTILE = 0.8;
const MAX_MODELS = 500;

/** A model's last replies, in tokens: in the order in which they came, and in that of their size. */
class Seen {
  readonly #recent = new Float64Array(REPLIES);
  readonly #sorted = new Float64Array(REPLIES);
  #count = 0;
  #next = 0;

  get expected(): number {
    return this.#sorted[Math.ceil(this.#count * QUANTILE) - 1]!;
  }
  /** On the way of every request: nothing is sorted, one number takes another one's place. */
  add(tokens: number): void {
    const sorted = this.#sorted;
    const isFull = this.#count === REPLIES;
    const gone = isFull ? this.#recent[this.#next]! : Number.POSITIVE_INFINITY;
    this.#recent[this.#next] = tokens;
    this.#next = (this.#next + 1) % REPLIES;
    let at = isFull ? this.#placeOf(gone) : this.#count++;
    for (; at > 0 && sorted[at - 1]! > tokens; at--) sorted[at] = sorted[at - 1]!;
    for (; at < this.#count - 1 && sorted[at + 1]! < tokens; at++) sorted[at] = sorted[at + 1]!;
    sorted[at] = tokens;
  }
  #placeOf(tokens: number): number {
    let low = 0;
    let high = this.#count - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#sorted[middle]! < tokens) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** How much output models give: learned from their bills, forgotten when newer ones come. */
export class Outputs {
  readonly #models = new Map<string, Seen>();

  /** Tokens that four out of five of the model's last replies did not exceed; undefined before the first. */
  expected(model: string): number | undefined {
    return this.#models.get(model)?.expected;
  }

  learn(model: string, outputTokens: number): void {
    let seen = this.#models.get(model);
    if (seen === undefined) {
      if (this.#models.size >= MAX_MODELS) this.#models.delete(this.#models.keys().next().value!);
      seen = new Seen();
      this.#models.set(model, seen);
    }
    seen.add(outputTokens);
  }
}

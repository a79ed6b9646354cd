/** How many replies of a model are looked back on, and which share of them the expectation covers. */
const REPLIES = 64;
const QUANTILE = 0.8;
const MAX_MODELS = 500;

interface Seen {
  readonly tokens: number[];
  next: number;
  expected: number;
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
      seen = { tokens: [], next: 0, expected: 0 };
      this.#models.set(model, seen);
    }
    seen.tokens[seen.next] = outputTokens;
    seen.next = (seen.next + 1) % REPLIES;
    const sorted = seen.tokens.toSorted((left, right) => left - right);
    seen.expected = sorted[Math.ceil(sorted.length * QUANTILE) - 1]!;
  }
}

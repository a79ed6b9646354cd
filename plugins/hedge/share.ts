/** How many may be saved up, so that a slow spell after a quiet one is met. */
const CAPACITY = 10;

/** A share of traffic: every request brings `share` of a permission, and one is there at the beginning. */
export class Share {
  #saved = 1;

  earn(share: number): void {
    this.#saved = Math.min(CAPACITY, this.#saved + share);
  }
  /** Whether there was a permission. Takes it, if so. */
  take(): boolean {
    if (this.#saved < 1) return false;
    this.#saved--;
    return true;
  }
}

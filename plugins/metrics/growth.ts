/**
 * A count that its owner begins anew at times, as each generation counts its plugins' failures: added up over the
 * owners, so that it only grows.
 */
export class Growth {
  #owner: unknown;
  #before = 0;
  #last = 0;

  /** What `owner` counts at present. */
  saw(owner: unknown, count: number): void {
    if (owner !== this.#owner) {
      this.#before += this.#last;
      this.#last = 0;
      this.#owner = owner;
    }
    if (count > this.#last) this.#last = count;
  }
  get total(): number {
    return this.#before + this.#last;
  }
}

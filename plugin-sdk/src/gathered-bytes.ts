/** Larger chunks are kept as they are. */
const SMALL_BYTES = 2_048;
const FIRST_BYTES = 4_096;
const MOST_BYTES = 65_536;
const NOTHING: Buffer = Buffer.alloc(0);

/**
 * Bytes that are kept while they come, in pieces. The many small chunks of a stream are copied one behind the other: a copy
 * takes less than the collector of garbage does for a chunk that stays (measured for streams of 200 events, whose chunks
 * outlived a scavenge or two). A first chunk, which is often the only one, is kept as it is.
 */
export class GatheredBytes {
  readonly #pieces: Buffer[] = [];
  #slab = NOTHING;
  /** What of the slab is in a piece already, and what is used. */
  #from = 0;
  #used = 0;

  /** Keeps the bytes of a chunk. */
  push(chunk: Buffer): void {
    const { length } = chunk;
    if (length > SMALL_BYTES || (this.#pieces.length === 0 && this.#used === 0)) {
      this.add(chunk);
      return;
    }
    if (this.#used + length > this.#slab.length) {
      this.#seal();
      this.#slab = Buffer.allocUnsafeSlow(Math.min(Math.max(FIRST_BYTES, 2 * this.#slab.length), MOST_BYTES));
      this.#from = 0;
      this.#used = 0;
    }
    chunk.copy(this.#slab, this.#used);
    this.#used += length;
  }
  /** Keeps a chunk as a piece of its own. */
  add(chunk: Buffer): void {
    this.#seal();
    this.#pieces.push(chunk);
  }
  /** All that is kept, in order; more comes as pieces behind these. */
  get pieces(): readonly Buffer[] {
    this.#seal();
    return this.#pieces;
  }
  /** Gives the first piece up. */
  shift(): Buffer | undefined {
    this.#seal();
    return this.#pieces.shift();
  }

  #seal(): void {
    if (this.#from === this.#used) return;
    this.#pieces.push(this.#slab.subarray(this.#from, this.#used));
    this.#from = this.#used;
  }
}

const MIN_BYTES = 256;
/** Longer ones are not kept. */
const MAX_BYTES = 262_144;

/** Bounds of a {@link KnownBytes}. */
export interface KnownBytesBounds {
  readonly entries: number;
  /** Bytes of all of them. */
  readonly bytes: number;
  /** Shorter runs are worked out anew (256): of most things that costs no more than to look for them. */
  readonly minBytes?: number;
}

const BOUNDS: KnownBytesBounds = { entries: 32, bytes: 2_097_152 };

interface Known<T> {
  /** A copy. */
  readonly bytes: Buffer;
  readonly value: T;
}

/**
 * What was worked out of runs of bytes, for when the same bytes come again, wherever they stand: an agent sends its tools and
 * its system prompt with every turn, and to compare 20 KB takes a microsecond, where to hash or to scan them takes many.
 */
export class KnownBytes<T> {
  /** The one used last comes first. */
  readonly #known: Known<T>[] = [];
  readonly #bounds: KnownBytesBounds;
  readonly #minBytes: number;
  #bytes = 0;

  constructor(bounds: KnownBytesBounds = BOUNDS) {
    this.#bounds = bounds;
    this.#minBytes = bounds.minBytes ?? MIN_BYTES;
  }

  /** What `make` gives for the bytes [start, end) of `buf`; it may depend on nothing but them. */
  of(buf: Buffer, start: number, end: number, make: () => T): T {
    const found = this.#find(buf, start, end, end - start);
    if (found !== undefined) return found.value;
    const value = make();
    this.keep(buf, start, end, value);
    return value;
  }
  /** What is kept for a run of any length that `buf` has at `start`, within `end`; undefined where there is none. */
  beginning(buf: Buffer, start: number, end: number): T | undefined {
    return this.#find(buf, start, end, undefined)?.value;
  }
  /** Keeps `value` for the bytes [start, end) of `buf`. */
  keep(buf: Buffer, start: number, end: number, value: T): void {
    const length = end - start;
    if (length < this.#minBytes || length > MAX_BYTES) return;
    const bytes = Buffer.allocUnsafeSlow(length);
    buf.copy(bytes, 0, start, end);
    this.#known.unshift({ bytes, value });
    this.#bytes += length;
    const { entries, bytes: most } = this.#bounds;
    while (this.#known.length > entries || (this.#bytes > most && this.#known.length > 1))
      this.#bytes -= this.#known.pop()!.bytes.length;
  }

  #find(buf: Buffer, start: number, end: number, wanted: number | undefined): Known<T> | undefined {
    const known = this.#known;
    for (let index = 0; index < known.length; index++) {
      const each = known[index]!;
      const { bytes } = each;
      const { length } = bytes;
      if (wanted === undefined ? length > end - start : length !== wanted) continue;
      // Most of those that begin alike end, or are in the middle, another way.
      const middle = length >> 1;
      if (bytes[middle] !== buf[start + middle] || bytes[length - 2] !== buf[start + length - 2]) continue;
      if (buf.compare(bytes, 0, length, start, start + length) !== 0) continue;
      if (index > 0) {
        known.splice(index, 1);
        known.unshift(each);
      }
      return each;
    }
    return undefined;
  }
}

/** A stretch of memory that stored replies are written into, one behind the other. */

/** Bytes of a segment for many replies. */
export const SEGMENT_BYTES = 1_048_576;
/** Where a reply begins is told in units of so many bytes. */
export const UNIT_BYTES = 8;
/** A reply's place: the number of its segment, times this, and its unit; plus one, as 0 says that there is none. */
export const UNITS = SEGMENT_BYTES / UNIT_BYTES;
export const MAX_SEGMENTS = 2 ** 32 / UNITS - 1;

/**
 * What stands before a reply's bytes, as numbers of 32 bits, from its first one on. Behind them come the needle of its key,
 * its texts, and its body.
 */
export const Field = {
  hash: 0,
  /** The place of the next one with the same bucket. */
  next: 1,
  flags: 2,
  /** Bytes of all of it; a multiple of {@link UNIT_BYTES}. */
  length: 3,
  /** Numbers of 64 bits, at half of this: when it was complete, and what it cost, NaN where that is not known. */
  at: 4,
  nanoUsd: 6,
  tokens: 8,
  needleBytes: 9,
  textBytes: 10,
  bodyBytes: 11,
  /** Eight of them; see `AnswerKey.words`. */
  words: 12,
} as const;
export const FIELDS_BYTES = 4 * (Field.words + 8);

export const Flag = {
  /** Neither deleted nor replaced. */
  live: 1,
  /** Given since it was written, or since it was spared for that. */
  used: 2,
  /** On disk, or about to be. */
  written: 4,
  chunked: 8,
  /** The key's needle is the request's body. */
  exact: 16,
} as const;

export class Segment {
  bytes: Buffer;
  words: Int32Array;
  numbers: Float64Array;
  /** Its number among all segments. */
  readonly slot: number;
  /** Whether it is for one large reply alone. */
  readonly isLarge: boolean;
  /** Bytes that are written, replies that no longer count included. */
  used = 0;
  /** Replies in it that count. */
  live = 0;
  /** Parts of it were given out, and may still be on their way to a client: what is written must stay as it is. */
  lent = false;

  constructor(slot: number, bytes: number, isLarge: boolean) {
    this.slot = slot;
    this.isLarge = isLarge;
    // Memory of its own, which begins where numbers may be.
    this.bytes = Buffer.allocUnsafeSlow(bytes);
    this.words = new Int32Array(this.bytes.buffer);
    this.numbers = new Float64Array(this.bytes.buffer);
  }
  /** Leaves the memory to those to whom it was lent, and goes on with a copy. */
  unlend(): void {
    if (!this.lent) return;
    const copy = Buffer.allocUnsafeSlow(this.bytes.length);
    this.bytes.copy(copy, 0, 0, this.used);
    this.bytes = copy;
    this.words = new Int32Array(copy.buffer);
    this.numbers = new Float64Array(copy.buffer);
    this.lent = false;
  }
  get size(): number {
    return this.bytes.length;
  }
  /** The place of the reply whose fields begin at this word. */
  placeOf(word: number): number {
    return this.slot * UNITS + word / 2 + 1;
  }
  /** Where the fields of each reply begin that counts. */
  replies(): number[] {
    const found: number[] = [];
    for (let word = 0; word < this.used / 4; word += this.words[word + Field.length]! / 4)
      if ((this.words[word + Field.flags]! & Flag.live) !== 0) found.push(word);
    return found;
  }
}

/** Where the bytes of a reply are in its segment. */
export function needleStart(word: number): number {
  return 4 * word + FIELDS_BYTES;
}

/** The most bytes of a whole number of up to 2^53. */
const LONGEST = 8;

const VIEWS = 256;

const utf8 = new TextEncoder();

/** Writes whole numbers of up to 2^53, seven bits a byte, the lowest first; into the same bytes each time. */
export class VarintWriter {
  #bytes = Buffer.alloc(512);
  #length = 0;
  /** Views of so many bytes, of the lengths that come up again and again: to make one takes as long as to fill it. */
  readonly #views: (Uint8Array | undefined)[] = Array(VIEWS).fill(undefined);

  begin(): this {
    this.#length = 0;
    return this;
  }
  /** What is less than nothing, or no number, is written as 0, and what is too large as the largest. */
  add(number: number): void {
    if (this.#length + LONGEST > this.#bytes.length) this.#grow(LONGEST);
    const bytes = this.#bytes;
    let rest = number > 0 ? Math.min(number, MOST) : 0;
    // Whole numbers of 32 bits have faster operations.
    while (rest >= 0x8000_0000) {
      bytes[this.#length++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    let low = rest | 0;
    while (low >= 0x80) {
      bytes[this.#length++] = (low & 0x7f) | 0x80;
      low >>>= 7;
    }
    bytes[this.#length++] = low;
  }
  /** A number, or none, which is NaN: as one more, and as 0. */
  addMaybe(number: number): void {
    this.add(Number.isNaN(number) ? 0 : number + 1);
  }
  /** A number that may be less than nothing, or NaN for none. */
  addSigned(number: number): void {
    if (Number.isNaN(number)) this.add(0);
    else this.add(1 + (number < 0 ? Math.max(-HALF, number) * -2 - 1 : Math.min(HALF, number) * 2));
  }
  addText(text: string | undefined): void {
    if (text === undefined) {
      this.add(0);
      return;
    }
    const bytes = utf8.encode(text);
    this.add(bytes.length + 1);
    if (this.#length + bytes.length > this.#bytes.length) this.#grow(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }
  /** What was written, until the next `begin`. */
  bytes(): Uint8Array {
    const length = this.#length;
    let view = this.#views[length];
    if (view === undefined) {
      view = new Uint8Array(this.#bytes.buffer, this.#bytes.byteOffset, length);
      if (length < this.#views.length) this.#views[length] = view;
    }
    return view;
  }

  #grow(by: number): void {
    const larger = Buffer.alloc(Math.max(this.#bytes.length * 2, this.#length + by));
    larger.set(this.#bytes);
    this.#bytes = larger;
    this.#views.fill(undefined);
  }
}
const MOST = 2 ** 53;
/** Twice as much is still exact. */
const HALF = 2 ** 51;

/** Reads what {@link VarintWriter} wrote, in its order. Behind the end there are zeros. */
export class VarintReader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }
  get atEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }
  next(): number {
    let value = 0;
    let factor = 1;
    for (;;) {
      const byte = this.#bytes[this.#at++] ?? 0;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
      factor *= 0x80;
    }
  }
  maybe(): number | null {
    const value = this.next();
    return value === 0 ? null : value - 1;
  }
  signed(): number | null {
    const value = this.maybe();
    return value === null ? null : value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }
  text(): string | null {
    const length = this.maybe();
    if (length === null) return null;
    const from = this.#at;
    this.#at += length;
    return Buffer.from(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.byteLength).toString(
      "utf8",
      from,
      this.#at,
    );
  }
}

/** The most bytes of a whole number of up to 2^53. */
const LONGEST = 8;

/** Writes whole numbers of up to 2^53, seven bits a byte, the lowest first; into the same bytes each time. */
export class VarintWriter {
  #bytes = new Uint8Array(512);
  #length = 0;

  begin(): this {
    this.#length = 0;
    return this;
  }
  add(number: number): void {
    if (this.#length + LONGEST > this.#bytes.length) {
      const larger = new Uint8Array(this.#bytes.length * 2);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    let rest = Math.max(0, Math.floor(number));
    while (rest >= 0x80) {
      this.#bytes[this.#length++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#bytes[this.#length++] = rest;
  }
  /** What was written, until the next `begin`. */
  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }
}

export function unpackVarints(bytes: Uint8Array): number[] {
  const numbers: number[] = [];
  let value = 0;
  let factor = 1;
  for (const byte of bytes) {
    value += (byte & 0x7f) * factor;
    if (byte >= 0x80) factor *= 0x80;
    else {
      numbers.push(value);
      value = 0;
      factor = 1;
    }
  }
  return numbers;
}

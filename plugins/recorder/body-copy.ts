/** The first bytes of a body that passes. */
export class BodyCopy {
  readonly #maxBytes: number;
  readonly #chunks: Buffer[] = [];
  #bytes = 0;
  isTruncated = false;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  readonly data = (chunk: Buffer): void => {
    const room = this.#maxBytes - this.#bytes;
    if (chunk.length > room) this.isTruncated = true;
    if (room <= 0) return;
    const part = chunk.length > room ? chunk.subarray(0, room) : chunk;
    this.#chunks.push(part);
    this.#bytes += part.length;
  };

  bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }
}

import { type Dialect, type SseEvent, SseSplitter } from "@tokenman/plugin-sdk";

/** How much of a stream is kept for an estimate; beyond it the rest is taken to be like the first part. */
const MAX_BYTES = 256 * 1024;

/**
 * The bytes of a streamed reply, kept unread in case it breaks off before its usage came. Reading them costs a parse of
 * each event, so that is done only then; while the stream lasts, this costs a step a chunk and none an event.
 */
export class OutputSample {
  readonly #dialect: Dialect;
  #chunks: Buffer[] = [];
  #kept = 0;
  #seen = 0;

  constructor(dialect: Dialect) {
    this.#dialect = dialect;
  }

  readonly data = (chunk: Buffer): void => {
    const { length } = chunk;
    this.#seen += length;
    const room = MAX_BYTES - this.#kept;
    if (room === 0) return;
    this.#chunks.push(length > room ? chunk.subarray(0, room) : chunk);
    this.#kept += Math.min(length, room);
  };

  /** Whether anything was generated. */
  hasText(): boolean {
    const read = this.#dialect.outputText;
    return read === undefined || this.#seen > this.#kept || this.text() !== "";
  }
  /** What was generated in the part that is kept. */
  text(): string {
    const read = this.#dialect.outputText;
    if (read === undefined) return "";
    const splitter = new SseSplitter();
    let text = "";
    const add = (event: SseEvent): void => {
      text += read(event);
    };
    for (const chunk of this.#chunks) splitter.push(chunk, add);
    // The last event may have been cut off, by the stream's end or by the bound.
    splitter.flush(add);
    return text;
  }
  /** How much longer the whole is than that part. */
  get scale(): number {
    return this.#kept === 0 ? 1 : this.#seen / this.#kept;
  }
  drop(): void {
    this.#chunks = [];
  }
}

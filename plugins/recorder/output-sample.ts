import type { Dialect, SseEvent } from "@tokenman/plugin-sdk";

/** How much of a stream is kept for an estimate; beyond it the rest is taken to be like the first part. */
const MAX_BYTES = 256 * 1024;

/**
 * The events of a streamed reply, kept unread in case it breaks off before its usage came. Reading them costs a parse
 * each, so that is done only then.
 */
export class OutputSample {
  readonly #dialect: Dialect;
  #events: SseEvent[] = [];
  #kept = 0;
  #seen = 0;

  constructor(dialect: Dialect) {
    this.#dialect = dialect;
  }

  readonly event = (event: SseEvent): void => {
    const { length } = event.raw;
    this.#seen += length;
    if (this.#kept + length > MAX_BYTES) return;
    this.#kept += length;
    this.#events.push(event);
  };

  /** What was generated in the part that is kept. */
  text(): string {
    const read = this.#dialect.outputText;
    if (read === undefined) return "";
    return this.#events.map((event) => read(event)).join("");
  }
  /** How much longer the whole is than that part. */
  get scale(): number {
    return this.#kept === 0 ? 1 : this.#seen / this.#kept;
  }
  drop(): void {
    this.#events = [];
  }
}

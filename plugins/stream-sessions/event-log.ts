/** An event as it goes out. */
interface Kept {
  readonly bytes: Buffer;
  /** Bytes of all events from the session's beginning to this one. */
  readonly total: number;
}

/** The newest events of a session, numbered from 1, within a bound. What is too old is gone. */
export class EventLog {
  readonly #maxBytes: number;
  #events: Kept[] = [];
  #first = 1;
  /** Bytes of all events ever, and of those that are gone. */
  #total = 0;
  #gone = 0;
  readonly #readers = new Set<LogReader>();
  #waiting: (() => void)[] = [];
  #closed = false;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** The number of the newest event; 0 where there is none yet. */
  get last(): number {
    return this.#first + this.#events.length - 1;
  }
  /** The number of the oldest event that is kept. */
  get first(): number {
    return this.#first;
  }
  get closed(): boolean {
    return this.#closed;
  }
  at(number: number): Buffer | undefined {
    return this.#events[number - this.#first]?.bytes;
  }

  /** Numbers an event (a whole block, with its blank line) and hands it to the readers. The newest is kept, however long. */
  push(block: Buffer): void {
    if (this.#closed) return;
    const bytes = Buffer.concat([Buffer.from(`id: ${this.last + 1}\n`), block]);
    this.#total += bytes.length;
    this.#events.push({ bytes, total: this.#total });
    if (this.#total - this.#gone > this.#maxBytes) this.#drop();
    for (const reader of this.#readers) reader.advance();
  }
  /** Makes room for some events at once: to take the first off a long list costs as much as to take many. */
  #drop(): void {
    const enough = this.#total - 0.75 * this.#maxBytes;
    let dropped = 0;
    while (this.#gone < enough && dropped < this.#events.length - 1)
      this.#gone = this.#events[dropped++]!.total;
    this.#events = this.#events.slice(dropped);
    this.#first += dropped;
  }
  /** No more will come: readers end when they have all. */
  close(): void {
    this.#closed = true;
    for (const reader of this.#readers) reader.advance();
    this.progressed();
  }

  join(reader: LogReader): void {
    this.#readers.add(reader);
    this.progressed();
  }
  leave(reader: LogReader): void {
    this.#readers.delete(reader);
    this.progressed();
  }
  /** A reader has taken something, came, or left. */
  progressed(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }
  /**
   * Resolves when an event of so many bytes pushes nothing out that the fastest reader has not taken. At once where nobody
   * reads, for then nobody's pace counts. `called` off, it waits for none.
   */
  async room(bytes: number, called: () => boolean): Promise<void> {
    while (!this.#closed && !called() && !this.#fits(bytes))
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }
  #fits(bytes: number): boolean {
    if (this.#readers.size === 0) return true;
    const behind = this.#behind();
    // Less than is left after room was made, so that a session's own few events find room besides.
    return behind === 0 || behind + bytes <= 0.5 * this.#maxBytes;
  }
  /** Bytes that the fastest reader has not taken. */
  #behind(): number {
    let at = 0;
    for (const reader of this.#readers) at = Math.max(at, reader.at);
    const taken = this.#events[at - this.#first]?.total ?? (at < this.#first ? this.#gone : this.#total);
    return this.#total - taken;
  }
}

/** One who follows a log with a cursor of its own. */
export interface LogReader {
  /** Number of the last event that it took. */
  readonly at: number;
  /** There may be more to take. */
  advance(): void;
}

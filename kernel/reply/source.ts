import type { TokenmanError } from "@tokenman/plugin-sdk";

/** Takes a body's bytes as they come. `end` or `fail` is called once, and nothing after it. */
export interface BodySink {
  data(chunk: Buffer): void;
  end(trailers: readonly string[] | undefined): void;
  fail(error: TokenmanError): void;
  /** Bytes taken but not passed on yet. */
  buffered?(): number;
}

/**
 * Where a body comes from. Nothing flows before `start`; then it is pushed, as fast as `pause` and `resume` allow.
 * A source may push a few chunks after `pause`.
 */
export interface BodySource {
  start(sink: BodySink): void;
  pause(): void;
  resume(): void;
  /** Nobody wants the rest. No call on the sink after it. Safe at any time, more than once. */
  abort(): void;
}

/** A body that is at hand. */
export class BufferSource implements BodySource {
  #body: Buffer | undefined;
  readonly #trailers: readonly string[] | undefined;

  constructor(body: Buffer, trailers?: readonly string[]) {
    this.#body = body;
    this.#trailers = trailers;
  }
  /** Never paused: the whole body is in memory already, so holding it back would save nothing. */
  start(sink: BodySink): void {
    const body = this.#body;
    this.#body = undefined;
    if (body === undefined) return;
    if (body.length > 0) sink.data(body);
    sink.end(this.#trailers);
  }
  pause(): void {}
  resume(): void {}
  abort(): void {
    this.#body = undefined;
  }
}

/** A body that a plugin or an in-process provider generates. */
export class IterableSource implements BodySource {
  readonly #iterator: AsyncIterator<Buffer>;
  readonly #failed: (cause: unknown) => TokenmanError;
  #sink: BodySink | undefined;
  #paused = false;
  #pulling = false;

  constructor(body: AsyncIterable<Buffer>, failed: (cause: unknown) => TokenmanError) {
    this.#iterator = body[Symbol.asyncIterator]();
    this.#failed = failed;
  }
  start(sink: BodySink): void {
    this.#sink = sink;
    void this.#pull();
  }
  pause(): void {
    this.#paused = true;
  }
  resume(): void {
    this.#paused = false;
    void this.#pull();
  }
  abort(): void {
    this.#sink = undefined;
    // A generator in the middle of an await takes `return` when it comes to its next yield; its signal ends the await.
    // The iterator is a plugin's: its `return` may also throw.
    void (async () => this.#iterator.return?.())().catch(() => {});
  }
  async #pull(): Promise<void> {
    if (this.#pulling) return;
    this.#pulling = true;
    try {
      while (this.#sink !== undefined && !this.#paused) {
        const next = await this.#iterator.next();
        if (this.#sink === undefined) return;
        if (next.done === true) {
          const sink = this.#sink;
          this.#sink = undefined;
          sink.end(undefined);
          return;
        }
        const chunk = bytesOf(next.value);
        if (chunk.length > 0) this.#sink.data(chunk);
      }
    } catch (cause) {
      const sink = this.#sink;
      this.#sink = undefined;
      sink?.fail(this.#failed(cause));
    } finally {
      this.#pulling = false;
    }
  }
}

function bytesOf(value: unknown): Buffer {
  if (Buffer.isBuffer(value)) return value;
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  throw new TypeError(
    `a body's stream gave ${value === null ? "null" : typeof value} in the place of a Buffer`,
  );
}

/** How a pushed body ended. */
export type Finish = { readonly trailers: readonly string[] | undefined } | { readonly error: TokenmanError };

/** What a {@link PushSource} holds while it is looked at. */
export interface HeldBody {
  readonly chunks: readonly Buffer[];
  /** No more will come. */
  readonly ended: boolean;
  /** The source holds all that it will hold before `start`. */
  readonly full: boolean;
  readonly error: TokenmanError | undefined;
}

/**
 * A body that arrives by callbacks (an upstream's reply), with what came before anybody asked kept in order. Before
 * `start` it holds up to `holdBytes`, then asks its origin to pause.
 */
export class PushSource implements BodySource {
  readonly #origin: { resume(): void; abort(): void };
  readonly #holdBytes: number;
  #sink: BodySink | undefined;
  #held: Buffer[] = [];
  #heldBytes = 0;
  #finish: Finish | undefined;
  #paused = false;
  #over = false;
  #watch: (() => void) | undefined;

  constructor(origin: { resume(): void; abort(): void }, holdBytes = 65_536) {
    this.#origin = origin;
    this.#holdBytes = holdBytes;
  }

  /** From the origin. False asks it to pause until its `resume` is called. */
  push(chunk: Buffer): boolean {
    if (this.#over) return true;
    if (this.#sink === undefined) {
      this.#held.push(chunk);
      this.#heldBytes += chunk.length;
      this.#paused = this.#heldBytes >= this.#holdBytes;
      this.#watch?.();
    } else this.#sink.data(chunk);
    return !this.#paused;
  }
  finish(trailers: readonly string[] | undefined): void {
    this.#settle({ trailers });
  }
  fail(error: TokenmanError): void {
    this.#settle({ error });
  }
  #settle(finish: Finish): void {
    if (this.#over) return;
    if (this.#sink === undefined) {
      this.#finish ??= finish;
      this.#watch?.();
      return;
    }
    this.#over = true;
    if ("error" in finish) this.#sink.fail(finish.error);
    else this.#sink.end(finish.trailers);
  }

  /** Looks at what is held without taking it: at once, and at every change until `look` returns true. */
  peek(look: (held: HeldBody) => boolean): void {
    const ask = (): void => {
      const finish = this.#finish;
      const done = look({
        chunks: this.#held,
        ended: finish !== undefined,
        full: this.#heldBytes >= this.#holdBytes,
        error: finish !== undefined && "error" in finish ? finish.error : undefined,
      });
      if (done && this.#watch === ask) this.#watch = undefined;
    };
    this.#watch = ask;
    ask();
  }
  start(sink: BodySink): void {
    if (this.#over || this.#sink !== undefined) return;
    this.#watch = undefined;
    this.#sink = sink;
    const wasPaused = this.#paused;
    this.#paused = false;
    const held = this.#held;
    this.#held = [];
    for (const chunk of held) {
      sink.data(chunk);
      if (this.#over) return;
    }
    if (this.#finish !== undefined) this.#settle(this.#finish);
    else if (wasPaused && !this.#paused) this.#origin.resume();
  }
  pause(): void {
    this.#paused = true;
  }
  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#origin.resume();
  }
  abort(): void {
    if (this.#over) return;
    this.#over = true;
    this.#held = [];
    this.#watch = undefined;
    // What has come to its end needs no calling off: its connection can serve again.
    if (this.#finish === undefined) this.#origin.abort();
  }
}

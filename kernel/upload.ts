import type { IncomingMessage } from "node:http";
import { PassThrough, type Readable } from "node:stream";
import { TokenmanError } from "@tokenman/plugin-sdk";

/**
 * The body of a request that streams through unread. Not the message itself: the HTTP client destroys the body of a
 * request that ended early, and with it would go the client's socket before the reply was relayed.
 */
export class Upload {
  readonly #stream = new PassThrough();
  #taken = false;

  /** `stallMs`: how long the client may send nothing although it could; 0 is for ever. */
  constructor(message: IncomingMessage, stallMs: number) {
    const stream = this.#stream;
    if (stallMs > 0) boundStalls(message, stream, stallMs);
    // Whoever sends the body hears of its errors; when nobody does, they are nobody's.
    stream.on("error", () => {});
    stream.on("close", () => {
      message.unpipe(stream);
      message.resume();
    });
    message.on("error", (cause) => stream.destroy(cause));
    message.on("close", () => {
      if (!message.complete) stream.destroy(new TokenmanError("TM_CLIENT_GONE"));
    });
    message.pipe(stream);
  }
  /** The bytes, for one attempt: they cannot be had twice. Undefined where one had them already. */
  take(): Readable | undefined {
    if (this.#taken) return undefined;
    this.#taken = true;
    return this.#stream;
  }
  /** Nobody will take it: what comes is read and dropped. */
  drop(): void {
    if (!this.#taken) this.#stream.destroy();
  }
}

/** A client that stops in the middle of its body would hold two connections for ever. */
function boundStalls(message: IncomingMessage, stream: PassThrough, stallMs: number): void {
  const stalled = (): void => {
    // A provider that reads slowly is not the client's fault.
    if (stream.writableNeedDrain) timer.refresh();
    else stream.destroy(new TokenmanError("TM_BODY_TIMEOUT", `The request body stalled for ${stallMs} ms.`));
  };
  const timer = setTimeout(stalled, stallMs);
  const stop = (): void => clearTimeout(timer);
  message.on("data", () => timer.refresh());
  message.once("end", stop);
  message.once("close", stop);
  stream.once("close", stop);
}

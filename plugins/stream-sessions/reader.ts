import type { ServerResponse } from "node:http";
import { encodeSse } from "@tokenman/plugin-sdk";
import type { EventLog, LogReader } from "./event-log.ts";

/** Headers of a stream of events. */
export const EVENT_STREAM = Object.freeze({
  "Content-Type": "text/event-stream; charset=utf-8",
  "Cache-Control": "no-store",
  "X-Accel-Buffering": "no",
  "X-Content-Type-Options": "nosniff",
});
const KEEP_ALIVE = encodeSse({ comment: "keep-alive" });

/**
 * A client that reads a session's events. What it has not taken stays in the log: a slow one makes nothing grow, and one
 * that is too far behind is told which events it missed.
 */
export class Reader implements LogReader {
  at: number;
  readonly #log: EventLog;
  readonly #response: ServerResponse;
  readonly #isIdle: () => boolean;
  #isFull = false;
  /** When its socket became full, in milliseconds of the monotonic clock. */
  #fullSinceMs = 0;
  #isLeaving = false;

  /** Joins the log behind event number `after`. `isIdle` tells whether no reply is on its way; `left` is called at the end. */
  constructor(
    log: EventLog,
    response: ServerResponse,
    options: { readonly after: number; readonly isIdle: () => boolean; readonly left: () => void },
  ) {
    this.#log = log;
    this.#response = response;
    this.#isIdle = options.isIdle;
    this.at = options.after;
    response.writeHead(200, EVENT_STREAM);
    response.on("drain", () => {
      this.#isFull = false;
      this.advance();
      log.progressed();
    });
    response.on("close", () => {
      log.leave(this);
      options.left();
    });
    this.#write(encodeSse({ retry: 1_000 }));
    log.join(this);
    this.advance();
  }

  advance(): void {
    const { first } = this.#log;
    if (this.#response.writableEnded) return;
    if (!this.#isFull && this.at < first - 1) {
      const missed = { missed_from: this.at + 1, missed_to: first - 1 };
      this.at = first - 1;
      this.#write(encodeSse({ event: "tokenman.gap", data: JSON.stringify(missed) }));
    }
    while (!this.#isFull && this.at < this.#log.last) this.#write(this.#log.at(++this.at)!);
    if (this.at < this.#log.last) return;
    if (this.#log.closed || (this.#isLeaving && this.#isIdle())) this.#response.end();
  }
  whenClosed(callback: () => void): void {
    this.#response.once("close", callback);
  }
  /** Shows that the connection lives. */
  keepAlive(): void {
    if (!this.#isFull && !this.#response.writableEnded) this.#write(KEEP_ALIVE);
  }
  /** Ends the stream as soon as no reply is on its way: its client comes back and goes on where it was. */
  leave(): void {
    this.#isLeaving = true;
    this.advance();
  }
  /** Gives a client up that has taken nothing for `stallMs`. */
  check(stallMs: number): void {
    if (stallMs > 0 && this.#isFull && performance.now() - this.#fullSinceMs >= stallMs)
      this.#response.destroy();
  }

  #write(bytes: Buffer): void {
    if (this.#response.write(bytes)) return;
    this.#isFull = true;
    this.#fullSinceMs = performance.now();
  }
}

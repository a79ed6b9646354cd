import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Readable } from "node:stream";
import type { ExchangeEnd, Sent } from "./end.ts";
import type { ExchangeState } from "./exchange.ts";
import type { KernelReply } from "./reply/reply.ts";
import { announcesBody, readBody } from "./request.ts";
import { respond } from "./respond.ts";
import type { Limits } from "./serving.ts";
import { Upload } from "./upload.ts";
import { relayedHeaders } from "./upstream/outgoing.ts";

/** How long a client that has its reply may go on sending the rest of its request. */
const REST_MS = 5_000;

/** The client's end of an exchange: its request's message, its response, and whether it is still there. */
export class ClientEnd implements ExchangeEnd {
  readonly response: ServerResponse;
  readonly socket: Socket;
  /** It speaks HTTP/1.0. */
  readonly legacy: boolean;
  /** Told once when the response closed, finished or not. */
  sender: { clientClosed(): void } | undefined;
  readonly #message: IncomingMessage;
  /** It waits for 100 Continue. */
  readonly #expects: boolean;
  #upload: Upload | undefined;

  constructor(message: IncomingMessage, response: ServerResponse, expects: boolean, exchange: ExchangeState) {
    this.response = response;
    this.socket = message.socket;
    this.legacy = message.httpVersionMinor === 0;
    this.#message = message;
    this.#expects = expects;
    response.on("close", () => {
      if (!response.writableFinished) exchange.clientLeft();
      this.sender?.clientClosed();
    });
  }

  body(wanted: boolean, limits: Limits): Promise<Buffer> | Buffer | undefined {
    const ready = this.#expects ? () => this.response.writeContinue() : undefined;
    if (wanted || !announcesBody(this.#message)) return readBody(this.#message, limits.body, ready);
    ready?.();
    this.#upload = new Upload(this.#message, limits.body.stallMs);
    return undefined;
  }
  upload(): Readable | undefined {
    return this.#upload?.take();
  }
  /** 1xx replies never fail an exchange. */
  inform(status: number, headers: readonly string[]): void {
    if (this.legacy || this.response.headersSent || status === 101) return;
    try {
      this.response.writeInformation(status, relayedHeaders(headers) as string[]);
    } catch {
      // One that cannot be written is dropped: the final reply is what counts.
    }
  }
  send(exchange: ExchangeState, reply: KernelReply, limits: Limits, isLast: boolean): Promise<Sent> {
    const message = this.#message;
    const unread = !message.complete && announcesBody(message);
    // The client must be able to send all of its request in order to come to its reply.
    if (unread) this.#readRest();
    const close = isLast || (unread && (this.#expects || reply.status === 408));
    return respond(exchange, reply, this, limits.writeMs, close);
  }
  /** The reply has ended, whole or not. */
  replied(): void {
    if (!this.#message.complete && !this.#message.destroyed) boundRest(this.#message);
  }
  breakOff(): void {
    this.response.destroy();
  }

  /** Reads and drops the rest of a body that nobody wants. */
  #readRest(): void {
    this.#message.on("error", () => {});
    // An upload that an attempt took is read by that, as long as its provider wants it.
    if (this.#upload === undefined) this.#message.resume();
    else this.#upload.drop();
  }
}

/** A client that has its reply and goes on sending may do so for a while, to have its connection for the next request. */
function boundRest(message: IncomingMessage): void {
  const { socket } = message;
  const bound = setTimeout(() => socket.destroy(), REST_MS);
  const stop = (): void => {
    clearTimeout(bound);
    socket.off("close", stop);
  };
  message.once("close", stop);
  // A message whose reply is out does not hear of the end of its connection.
  socket.once("close", stop);
}

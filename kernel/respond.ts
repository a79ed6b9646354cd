import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { type BodyEnd, headerValue, type RawHeaders, TokenmanError } from "@tokenman/plugin-sdk";
import type { ExchangeState } from "./exchange.ts";
import type { Flow } from "./flow.ts";
import type { KernelReply } from "./reply.ts";
import type { BodySink } from "./source.ts";

/** How long the bytes before a break may take to leave before the socket is destroyed with them. */
const LAST_BYTES_MS = 1_000;

/** How the sending of a reply ended. */
export interface Sent {
  readonly end: "whole" | "aborted" | "cut";
  /** What broke the reply, where something of TokenMan's or the upstream's did. */
  readonly error: TokenmanError | undefined;
  readonly bytes: number;
  /** Milliseconds from the exchange's start to the first body byte. */
  readonly firstByteMs: number | undefined;
  readonly body: BodyEnd;
}

/** The client's end of an exchange: its response, and whether it is still there. */
export interface ClientLink {
  readonly response: ServerResponse;
  readonly socket: Socket;
  readonly legacy: boolean;
  /** Called once when the response closed, finished or not. */
  onClose: (() => void) | undefined;
}

export interface RespondOptions {
  /** How long the client may stall while reading; 0 is for ever. */
  readonly writeTimeoutMs: number;
  /** Whether the connection is to be closed after this reply. */
  readonly close: boolean;
}

/** Sends a reply's head and body. Resolves when the client has all, or left, and the upstream's end is known. */
export function respond(
  exchange: ExchangeState,
  reply: KernelReply,
  link: ClientLink,
  options: RespondOptions,
): Promise<Sent> {
  return new Promise((resolve) => new Sender(exchange, reply, link, options, resolve).start());
}

class Sender implements BodySink {
  readonly #exchange: ExchangeState;
  readonly #reply: KernelReply;
  readonly #link: ClientLink;
  readonly #options: RespondOptions;
  readonly #resolve: (sent: Sent) => void;
  readonly #flow: Flow;
  #lengthLeft: number | undefined;
  #bytes = 0;
  #firstByteMs: number | undefined;
  #stall: NodeJS.Timeout | undefined;
  #error: TokenmanError | undefined;
  #ended = false;
  #closed = false;
  #body: BodyEnd | undefined;

  constructor(
    exchange: ExchangeState,
    reply: KernelReply,
    link: ClientLink,
    options: RespondOptions,
    resolve: (sent: Sent) => void,
  ) {
    this.#exchange = exchange;
    this.#reply = reply;
    this.#link = link;
    this.#options = options;
    this.#resolve = resolve;
    this.#flow = reply.body();
  }

  start(): void {
    const { response, socket } = this.#link;
    this.#flow.whenDone((end) => {
      this.#body = end;
      this.#reply.attempt?.bodyEnded(end);
      this.#finish();
    });
    if (socket.destroyed || response.destroyed) {
      this.#clientClosed();
      this.#flow.start(this);
      this.#flow.abort();
      return;
    }
    this.#link.onClose = () => this.#clientClosed();
    const headers = this.#head();
    response.sendDate = this.#reply.origin !== "provider";
    try {
      response.writeHead(this.#reply.status, this.#reply.statusText ?? "", headers as string[]);
    } catch (cause) {
      this.fail(new TokenmanError("TM_UPSTREAM_PROTOCOL", "the reply's head cannot be sent", { cause }));
      this.#flow.start(this);
      this.#flow.abort();
      return;
    }
    const length = headerValue(headers, "content-length");
    if (length !== undefined && response.req.method !== "HEAD") this.#lengthLeft = Number(length);
    this.#flow.start(this);
    // The head waits a turn for the first bytes, to leave in one packet with them; a silent body does not hold it back.
    if (this.#bytes === 0 && !this.#ended) {
      setImmediate(() => {
        if (this.#bytes === 0 && !this.#ended && !this.#closed) response.flushHeaders();
      });
    }
  }

  data(chunk: Buffer): void {
    if (this.#ended || this.#closed) return;
    const { response } = this.#link;
    this.#firstByteMs ??= this.#exchange.elapsedMs();
    this.#bytes += chunk.length;
    if (this.#lengthLeft !== undefined) {
      this.#lengthLeft -= chunk.length;
      if (this.#lengthLeft === 0) {
        this.#ended = true;
        response.end(chunk);
        return;
      }
    }
    if (response.write(chunk)) return;
    this.#flow.pause();
    if (this.#stall !== undefined) return;
    const { writeTimeoutMs } = this.#options;
    if (writeTimeoutMs > 0) {
      this.#stall = setTimeout(
        () =>
          this.fail(
            new TokenmanError("TM_CLIENT_STALLED", `the client read nothing for ${writeTimeoutMs} ms`),
          ),
        writeTimeoutMs,
      );
    }
    response.once("drain", () => {
      clearTimeout(this.#stall);
      this.#stall = undefined;
      this.#flow.resume();
    });
  }
  end(trailers: readonly string[] | undefined): void {
    if (this.#ended || this.#closed) return;
    this.#ended = true;
    const { response } = this.#link;
    if (trailers !== undefined) {
      const pairs: [string, string][] = [];
      for (let index = 0; index + 1 < trailers.length; index += 2)
        pairs.push([trailers[index]!, trailers[index + 1]!]);
      response.addTrailers(pairs);
    }
    response.end();
  }
  /** A break: the bytes so far leave, then the socket is destroyed. It is never ended as if the reply were whole. */
  fail(error: TokenmanError): void {
    if (this.#ended || this.#closed) return;
    this.#ended = true;
    this.#error = error;
    const { response, socket, legacy } = this.#link;
    const destroy = (): void => {
      clearTimeout(bound);
      // To a client of HTTP/1.0 the end of the connection is the end of the body, so only a reset says that it broke.
      if (legacy) socket.resetAndDestroy();
      else response.destroy();
    };
    const bound = setTimeout(destroy, LAST_BYTES_MS);
    if (!response.headersSent || error.code === "TM_CLIENT_STALLED") destroy();
    else {
      response.flushHeaders();
      // Queued behind all that was written before it.
      setImmediate(() => socket.write("", destroy));
    }
    if (error.code === "TM_CLIENT_STALLED") this.#flow.abort();
  }
  buffered(): number {
    return this.#link.response.writableLength;
  }

  #head(): RawHeaders {
    const { attempt } = this.#reply;
    const headers = [...this.#reply.finalHeaders(), "X-Tokenman-Request-Id", this.#exchange.id];
    if (attempt !== undefined) headers.push("X-Tokenman-Provider", attempt.provider.name);
    if (this.#options.close) headers.push("Connection", "close");
    return headers;
  }
  #clientClosed(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#stall);
    this.#link.onClose = undefined;
    if (!this.#link.response.writableFinished) this.#flow.abort();
    this.#finish();
  }
  #finish(): void {
    if (!this.#closed || this.#body === undefined) return;
    const whole = this.#link.response.writableFinished && this.#error === undefined;
    this.#resolve({
      end: whole ? "whole" : this.#error !== undefined ? "cut" : "aborted",
      error: this.#error,
      bytes: this.#bytes,
      firstByteMs: this.#firstByteMs,
      body: this.#body,
    });
  }
}

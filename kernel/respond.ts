import { type ServerResponse, STATUS_CODES } from "node:http";
import {
  type BodyEnd,
  headerValue,
  type RawHeaders,
  TokenmanError,
  withoutHeaders,
} from "@tokenman/plugin-sdk";
import type { ClientEnd } from "./client-end.ts";
import type { Sent } from "./end.ts";
import type { ExchangeState } from "./exchange.ts";
import type { Flow } from "./reply/flow.ts";
import type { KernelReply } from "./reply/reply.ts";
import type { BodySink } from "./reply/source.ts";

/** What a socket buffers without anybody waiting for it. */
const SOCKET_BUFFER_BYTES = 64 * 1024;
/** A whole body up to this leaves with its head in one piece: Node writes texts up to 16 KB without another copy. */
const ONE_WRITE_BYTES = 8 * 1024;
/** How long the bytes before a break may take to leave before the socket is destroyed with them. */
const LAST_BYTES_MS = 1_000;

const TRAILER: ReadonlySet<string> = new Set(["trailer"]);

/**
 * Sends a reply's head and body. Resolves when the client has all, or left, and the upstream's end is known. The client
 * may stall for `writeTimeoutMs` while reading (0: for ever); `close`: its connection is closed after this reply.
 */
export function respond(
  exchange: ExchangeState,
  reply: KernelReply,
  client: ClientEnd,
  writeTimeoutMs: number,
  close: boolean,
): Promise<Sent> {
  return new Promise((resolve) =>
    new Sender(exchange, reply, client, writeTimeoutMs, close, resolve).start(),
  );
}

class Sender implements BodySink {
  readonly #exchange: ExchangeState;
  readonly #reply: KernelReply;
  readonly #client: ClientEnd;
  readonly #writeTimeoutMs: number;
  readonly #close: boolean;
  readonly #resolve: (sent: Sent) => void;
  readonly #flow: Flow;
  #lengthLeft: number | undefined;
  #bytes = 0;
  #firstByteMs: number | undefined;
  #watched = false;
  #error: TokenmanError | undefined;
  #ended = false;
  #closed = false;
  #body: BodyEnd | undefined;

  constructor(
    exchange: ExchangeState,
    reply: KernelReply,
    client: ClientEnd,
    writeTimeoutMs: number,
    close: boolean,
    resolve: (sent: Sent) => void,
  ) {
    this.#exchange = exchange;
    this.#reply = reply;
    this.#client = client;
    this.#writeTimeoutMs = writeTimeoutMs;
    this.#close = close;
    this.#resolve = resolve;
    this.#flow = reply.body();
  }

  start(): void {
    const { response, socket } = this.#client;
    this.#flow.whenDone((end) => {
      this.#body = end;
      this.#reply.attempt?.bodyEnded(end);
      this.#finish();
    });
    if (socket.destroyed || response.destroyed) {
      // Those who share the reply still want it.
      this.#closed = true;
      this.#flow.start(this);
      this.#flow.leave(this.#exchange.cancellation);
      return;
    }
    this.#client.sender = this;
    const headers = this.#head();
    const { status, origin } = this.#reply;
    const length = headerValue(headers, "content-length");
    const hasBody = response.req.method !== "HEAD" && status !== 204 && status !== 304;
    // Trailers follow chunks only (RFC 9112 §7.1.2), and node:http refuses to announce others.
    const isChunked = hasBody && length === undefined && !this.#client.legacy;
    const sendable = isChunked ? headers : withoutHeaders(headers, TRAILER);
    response.sendDate = origin !== "provider";
    try {
      response.writeHead(status, sendableReason(status, this.#reply.reasonPhrase), sendable as string[]);
    } catch (cause) {
      this.fail(new TokenmanError("TM_UPSTREAM_PROTOCOL", "the reply's head cannot be sent", { cause }));
      this.#flow.abort();
      return;
    }
    if (length !== undefined && hasBody) this.#lengthLeft = Number(length);
    this.#flow.start(this);
    // The head waits a turn for the first bytes, to leave in one packet with them; a silent body does not hold it back.
    if (this.#bytes === 0 && !this.#ended) {
      setImmediate(() => {
        if (this.#bytes === 0 && !this.#ended && !this.#closed) flushHead(response);
      });
    }
  }

  data(chunk: Buffer): void {
    if (this.#ended || this.#closed) return;
    const { response } = this.#client;
    this.#firstByteMs ??= this.#exchange.elapsedMs();
    this.#bytes += chunk.length;
    if (this.#lengthLeft !== undefined) {
      this.#lengthLeft -= chunk.length;
      if (this.#lengthLeft < 0) {
        this.fail(new TokenmanError("TM_UPSTREAM_PROTOCOL", "the body is longer than its Content-Length"));
        return;
      }
      if (this.#lengthLeft === 0) {
        this.#ended = true;
        // With the head in one text, and so in one write of the socket's, where two pieces would need a vector of them.
        if (this.#bytes === chunk.length && chunk.length <= ONE_WRITE_BYTES)
          response.end(chunk.toString("latin1"), "latin1");
        else response.end(chunk);
        this.#watchLast();
        // No "drain" follows, and the source may have its own end still to tell.
        this.#flow.resume();
        return;
      }
    }
    if (response.write(chunk)) return;
    this.#flow.pause();
    this.#watch();
  }
  end(trailers: readonly string[] | undefined): void {
    if (this.#ended || this.#closed) return;
    if (this.#lengthLeft !== undefined && this.#lengthLeft > 0) {
      this.fail(new TokenmanError("TM_UPSTREAM_CUT", "the body is shorter than its Content-Length"));
      return;
    }
    this.#ended = true;
    const { response } = this.#client;
    if (trailers !== undefined) addTrailers(response, trailers);
    response.end();
    this.#watchLast();
  }
  /** A break: the bytes so far leave, then the socket is destroyed. It is never ended as if the reply were whole. */
  fail(error: TokenmanError): void {
    if (this.#ended || this.#closed) return;
    this.#break(error);
    if (error.code === "TM_CLIENT_STALLED") this.#flow.abort();
  }
  #break(error: TokenmanError): void {
    this.#ended = true;
    this.#error = error;
    const { response, socket, legacy } = this.#client;
    const destroy = (): void => {
      clearTimeout(bound);
      // To a client of HTTP/1.0 the end of the connection is the end of the body, so only a reset says that it broke.
      if (legacy) socket.resetAndDestroy();
      else response.destroy();
    };
    const bound = setTimeout(destroy, LAST_BYTES_MS);
    // A pipelined reply whose turn has not come has no socket yet: what is destroyed is its turn.
    if (!response.headersSent || response.socket === null || error.code === "TM_CLIENT_STALLED") destroy();
    else {
      flushHead(response);
      // Queued behind all that was written before it.
      setImmediate(() => socket.write("", destroy));
    }
  }
  buffered(): number {
    return this.#client.response.writableLength;
  }

  #head(): RawHeaders {
    const { attempt } = this.#reply;
    const headers = [...this.#reply.finalHeaders(), "X-Tokenman-Request-Id", this.#exchange.id];
    if (attempt !== undefined) headers.push("X-Tokenman-Provider", attempt.provider.name);
    if (this.#close) headers.push("Connection", "close");
    return headers;
  }
  /**
   * Waits for a client that reads too slowly. The socket's own timer bounds the wait: it knows of partial progress with
   * a large buffer, of which "drain" tells nothing.
   */
  #watch(): void {
    if (this.#watched) return;
    this.#watched = true;
    const { response } = this.#client;
    if (this.#writeTimeoutMs > 0) response.setTimeout(this.#writeTimeoutMs, () => this.#stalled());
    response.on("drain", () => this.#flow.resume());
  }
  /** What was handed over in full may still be too much for the socket's buffers. */
  #watchLast(): void {
    if (this.#client.response.writableLength > SOCKET_BUFFER_BYTES) this.#watch();
  }
  #stalled(): void {
    const { response } = this.#client;
    if (this.#closed || response.writableFinished || response.writableLength === 0) return;
    const message = `the client read nothing for ${this.#writeTimeoutMs} ms`;
    this.#break(new TokenmanError("TM_CLIENT_STALLED", message));
    this.#flow.abort();
  }
  clientClosed(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#client.sender = undefined;
    if (!this.#client.response.writableFinished) this.#flow.leave(this.#exchange.cancellation);
    this.#finish();
  }
  #finish(): void {
    if (!this.#closed || this.#body === undefined) return;
    this.#client.replied();
    const whole = this.#client.response.writableFinished && this.#error === undefined;
    this.#resolve({
      end: whole ? "whole" : this.#error !== undefined ? "cut" : "aborted",
      headSent: this.#client.response.headersSent,
      error: this.#error,
      bytes: this.#bytes,
      firstByteMs: this.#firstByteMs,
      body: this.#body,
    });
  }
}

/**
 * The reason phrase to send: as it came, else the status's own. Undici reads it as UTF-8, so what was UTF-8 is written
 * as such again, and a phrase that cannot be sent is replaced.
 */
function sendableReason(status: number, received: string | undefined): string {
  const usual = STATUS_CODES[status] ?? "";
  if (received === undefined) return usual;
  if (/^[\t\x20-\x7e]*$/.test(received)) return received;
  const bytes = Buffer.from(received).toString("latin1");
  return /^[\t\x20-\x7e\x80-\xff]*$/.test(bytes) ? bytes : usual;
}

/** Sends the head now. Node's own flushHeaders would write a head with bytes above 0x7f as UTF-8. */
function flushHead(response: ServerResponse): void {
  response.write("", "latin1");
}

function addTrailers(response: ServerResponse, trailers: readonly string[]): void {
  const pairs: [string, string][] = [];
  for (let index = 0; index + 1 < trailers.length; index += 2)
    pairs.push([trailers[index]!, trailers[index + 1]!]);
  try {
    response.addTrailers(pairs);
  } catch {
    // The body is whole; a trailer that cannot be written is left out.
  }
}

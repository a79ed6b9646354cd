import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { type ClientRequest, headerValue, type RawHeaders, TokenmanError } from "@tokenman/plugin-sdk";
import { contentCoding, decodeBody, isKnownCoding } from "./reply/codec.ts";
import { Watchdog, type Watched } from "./watchdog.ts";

const EMPTY = Buffer.alloc(0);

/** Who sent a request, and how. */
export interface Sender {
  readonly method?: string | undefined;
  readonly socket: { readonly remoteAddress?: string | undefined };
}

/** The request as the client sent it. */
export class ReceivedRequest implements ClientRequest {
  readonly method: string;
  readonly target: string;
  readonly path: string;
  /** The path to send: as it came, with the `/v1` that some clients omit. */
  readonly sentPath: string;
  readonly headers: RawHeaders;
  readonly remoteAddress: string;
  rawBody: Buffer | undefined;
  body: Buffer | undefined;

  constructor(message: Sender, target: string, path: string, sentPath: string, headers: RawHeaders) {
    this.method = message.method ?? "GET";
    this.target = target;
    this.path = path;
    this.sentPath = sentPath;
    this.headers = headers;
    this.remoteAddress = message.socket.remoteAddress ?? "";
  }
  header(name: string): string | undefined {
    return headerValue(this.headers, name);
  }
  /** Takes the body in, and a decoded copy where it is coded; only then there is something to wait for. */
  take(rawBody: Buffer, maxDecodedBytes: number): Promise<void> | undefined {
    this.rawBody = rawBody;
    const coding = contentCoding(this.header("content-encoding"));
    if (coding === undefined) this.body = rawBody;
    else if (isKnownCoding(coding)) return this.#decode(rawBody, coding, maxDecodedBytes);
    return undefined;
  }
  async #decode(rawBody: Buffer, coding: string, maxBytes: number): Promise<void> {
    this.body = await decodeBody(rawBody, coding, maxBytes);
  }
}

/** Bodies of an announced length up to this get their memory at once; a client could announce much and send little. */
const PREALLOCATED_BYTES = 2 * 1024 * 1024;

export interface BodyLimits {
  /** Bytes; 0 is no limit. */
  readonly maxBytes: number;
  /** How long the body may stall; 0 is for ever. */
  readonly stallMs: number;
}

/** Whether the head announces a body. */
export function announcesBody(message: IncomingMessage): boolean {
  const { rawHeaders } = message;
  if ((headerValue(rawHeaders, "content-length") ?? "0") !== "0") return true;
  return headerValue(rawHeaders, "transfer-encoding") !== undefined;
}

/**
 * Reads a body into memory. Rejects with TM_BODY_TOO_LARGE, from the announced length before anything is read, with
 * TM_BODY_TIMEOUT, or TM_CLIENT_GONE. `ready` is called before the first byte is awaited (100 Continue).
 */
export function readBody(message: IncomingMessage, limits: BodyLimits, ready?: () => void): Promise<Buffer> {
  const { maxBytes } = limits;
  if (!announcesBody(message)) {
    message.resume();
    return Promise.resolve(EMPTY);
  }
  const announced = headerValue(message.rawHeaders, "content-length");
  if (maxBytes > 0 && announced !== undefined && Number(announced) > maxBytes)
    return Promise.reject(tooLarge(maxBytes));
  ready?.();
  return new Promise((resolve, reject) => new BodyReading(message, limits, resolve, reject).begin());
}

/** One time-out a connection: its requests come one after the other. */
const stalls = new WeakMap<Socket, Watchdog>();

function stallOf(socket: Socket): Watchdog {
  let watchdog = stalls.get(socket);
  if (watchdog === undefined) {
    watchdog = new Watchdog();
    stalls.set(socket, watchdog);
  }
  return watchdog;
}

class BodyReading implements Watched {
  readonly #message: IncomingMessage;
  readonly #limits: BodyLimits;
  readonly #resolve: (body: Buffer) => void;
  readonly #reject: (error: TokenmanError) => void;
  readonly #stall: Watchdog;
  /** The announced length, where memory for it may be taken at once; else 0. */
  readonly #known: number;
  // Filled as they come, chunks are garbage at once; kept until the end they would outlive the collector's young
  // generation, and large bodies would cost full collections.
  #whole: Buffer | undefined;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #done = false;

  constructor(
    message: IncomingMessage,
    limits: BodyLimits,
    resolve: (body: Buffer) => void,
    reject: (error: TokenmanError) => void,
  ) {
    this.#message = message;
    this.#limits = limits;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#stall = stallOf(message.socket);
    const length = Number(headerValue(message.rawHeaders, "content-length") ?? 0);
    this.#known = length <= PREALLOCATED_BYTES ? length : 0;
  }

  begin(): void {
    const message = this.#message;
    this.#stall.arm(this.#limits.stallMs, this);
    // The listeners stay: to take them off costs more than the calls that find it done.
    message.on("data", (chunk: Buffer) => this.#take(chunk));
    message.on("end", () => this.#end());
    message.on("close", () => {
      if (!this.#done)
        this.#fail(new TokenmanError("TM_CLIENT_GONE", "The client left before its request was complete."));
    });
  }
  expired(): void {
    const { stallMs } = this.#limits;
    this.#fail(new TokenmanError("TM_BODY_TIMEOUT", `The request body stalled for ${stallMs} ms.`));
  }

  #take(chunk: Buffer): void {
    if (this.#done) return;
    const from = this.#bytes;
    this.#bytes += chunk.length;
    const { maxBytes } = this.#limits;
    if (maxBytes > 0 && this.#bytes > maxBytes) {
      this.#fail(tooLarge(maxBytes));
      return;
    }
    if (from === 0 && chunk.length < this.#known) this.#whole = Buffer.allocUnsafeSlow(this.#known);
    if (this.#whole === undefined) this.#chunks.push(chunk);
    else chunk.copy(this.#whole, from);
    // What came in one piece is at its end at once.
    if (this.#bytes !== this.#known) this.#stall.touch();
  }
  #end(): void {
    if (this.#done) return;
    this.#done = true;
    this.#stall.disarm();
    const chunks = this.#chunks;
    this.#chunks = [];
    // The HTTP parser has seen to it that an announced length came in full.
    this.#resolve(this.#whole ?? (chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks, this.#bytes)));
  }
  #fail(error: TokenmanError): void {
    if (this.#done) return;
    this.#done = true;
    this.#stall.disarm();
    this.#message.pause();
    this.#reject(error);
  }
}

/** The error of a body over `server.max_body_size`. */
export function tooLarge(maxBytes: number): TokenmanError {
  return new TokenmanError(
    "TM_BODY_TOO_LARGE",
    `The request body is over server.max_body_size (${maxBytes} bytes).`,
  );
}

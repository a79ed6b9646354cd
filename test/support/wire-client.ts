import net, { type Socket } from "node:net";
import type { RawHeaders } from "@tokenman/plugin-sdk";
import { gate } from "./upstream.ts";

/** A reply as it came over the wire. */
export interface WireReply {
  readonly version: string;
  readonly status: number;
  /** The reason phrase, in latin1. */
  readonly reason: string;
  /** name, value, name, value …, with the case, order and duplicates of the wire, in latin1. */
  readonly headers: RawHeaders;
  readonly framing: "none" | "length" | "chunked" | "close";
  /** Body bytes so far, freed from chunked coding and nothing else. */
  readonly body: Buffer;
  readonly bodyBytes: number;
  readonly trailers: RawHeaders;
  /** Whether it came to its end as its framing demands. */
  readonly whole: boolean;
  /** Whether the connection was reset or closed before it did. */
  readonly broken: boolean;
  /** The values of all headers of that name, any case. */
  values(name: string): readonly string[];
}

/**
 * A client that sends bytes as given and reads replies as RFC 9112 tells, changing nothing. Replies come in the order of
 * the requests: `expect` says what each one is, because a reply to HEAD has no body whatever its headers say.
 */
export class WireClient {
  readonly socket: Socket;
  readonly #replies: Received[] = [];
  readonly #methods: string[] = [];
  #held: Buffer = Buffer.alloc(0);
  #reading = 0;
  #ended = false;
  #changed = gate();
  readonly closed: Promise<void>;

  private constructor(socket: Socket) {
    this.socket = socket;
    const closed = gate();
    this.closed = closed.opened;
    socket.on("data", (chunk: Buffer) => {
      this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
      this.#read();
    });
    const over = (clean: boolean): void => {
      if (this.#ended) return;
      this.#ended = true;
      this.#over(clean);
    };
    socket.on("end", () => over(true));
    socket.on("error", () => over(false));
    socket.on("close", () => {
      over(false);
      closed.open();
    });
  }
  static connect(url: string): Promise<WireClient> {
    const { hostname, port } = new URL(url);
    const opened = gate<WireClient>();
    const socket = net.connect({ host: hostname, port: Number(port), noDelay: true });
    socket.once("error", opened.fail);
    socket.once("connect", () => opened.open(new WireClient(socket)));
    return opened.opened;
  }
  /** Sends a request, or a part of one, and resolves when the system has taken it. */
  send(bytes: Buffer | string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.socket.write(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes, (cause) =>
        cause ? reject(cause) : resolve(),
      );
    });
  }
  /** The next reply, as soon as `enough` holds; by default when it is whole or broken. */
  async reply(enough?: (reply: WireReply) => boolean): Promise<WireReply> {
    const index = this.#reading;
    const reply = await this.#when(index, (one) => one.whole || one.broken || enough?.(one) === true);
    if (reply.whole || reply.broken) this.#reading = index + 1;
    return reply;
  }
  /** Sends a request and waits for its whole reply. */
  async ask(request: Buffer | string, method = "POST"): Promise<WireReply> {
    this.expect(method);
    await this.send(request);
    return this.reply();
  }
  /** Says that the next reply answers a request of this method. Only HEAD makes a difference. */
  expect(method: string): void {
    this.#methods.push(method);
  }
  reset(): void {
    this.socket.resetAndDestroy();
  }
  [Symbol.dispose](): void {
    this.socket.destroy();
  }

  async #when(index: number, enough: (reply: WireReply) => boolean): Promise<WireReply> {
    for (;;) {
      const reply = this.#replies[index];
      if (reply !== undefined && enough(reply)) return reply;
      if (this.#ended && (reply === undefined || reply.framing !== "close"))
        throw new Error("the connection ended without a reply");
      await this.#changed.opened;
    }
  }
  #over(clean: boolean): void {
    const reply = this.#replies.at(-1);
    if (reply !== undefined && !reply.whole) {
      if (reply.framing === "close" && clean) reply.whole = true;
      else reply.broken = true;
    }
    this.#tell();
  }
  #tell(): void {
    const changed = this.#changed;
    this.#changed = gate();
    changed.open();
  }
  #read(): void {
    while (this.#step());
    this.#tell();
  }
  #step(): boolean {
    const reply = this.#replies.at(-1);
    if (reply === undefined || reply.whole) return this.#head();
    if (reply.framing === "close") return this.#take(reply, this.#held.length);
    if (reply.framing === "length") {
      const taken = this.#take(reply, Math.min(this.#held.length, reply.left));
      reply.left -= this.#lastTaken;
      if (reply.left === 0) reply.whole = true;
      return taken;
    }
    return this.#chunked(reply);
  }
  #head(): boolean {
    const end = this.#held.indexOf("\r\n\r\n");
    if (end < 0) return false;
    const [statusLine = "", ...lines] = this.#cut(end + 4)
      .subarray(0, end)
      .toString("latin1")
      .split("\r\n");
    const [, version = "", status = "", reason = ""] =
      /^(HTTP\/\d\.\d) (\d{3}) ?(.*)$/.exec(statusLine) ?? [];
    const reply = new Received(version, Number(status), reason, fieldsOf(lines));
    if (reply.status >= 100 && reply.status < 200) {
      reply.framing = "none";
      reply.whole = true;
      this.information.push(reply);
      return true;
    }
    const bodiless = this.#methods.shift() === "HEAD" || reply.status === 204 || reply.status === 304;
    const length = reply.values("content-length")[0];
    reply.framing = bodiless
      ? "none"
      : reply.values("transfer-encoding").length > 0
        ? "chunked"
        : length !== undefined
          ? "length"
          : "close";
    reply.left = reply.framing === "length" ? Number(length) : 0;
    reply.whole = bodiless || (reply.framing === "length" && reply.left === 0);
    this.#replies.push(reply);
    return true;
  }
  /** Replies of 1xx, which stand before the one that answers. */
  readonly information: WireReply[] = [];

  #lastTaken = 0;
  #take(reply: Received, bytes: number): boolean {
    this.#lastTaken = bytes;
    if (bytes === 0) return false;
    reply.add(this.#cut(bytes));
    return true;
  }
  #chunked(reply: Received): boolean {
    if (reply.left > 0) {
      const taken = this.#take(reply, Math.min(this.#held.length, reply.left));
      reply.left -= this.#lastTaken;
      reply.afterChunk = true;
      return taken;
    }
    if (reply.afterChunk) {
      if (this.#held.length < 2) return false;
      this.#cut(2);
      reply.afterChunk = false;
      return true;
    }
    if (reply.inTrailers) {
      const empty = this.#held.subarray(0, 2).toString("latin1") === "\r\n";
      const end = empty ? 0 : this.#held.indexOf("\r\n\r\n");
      if (this.#held.length < 2 || end < 0) return false;
      const text = this.#cut(empty ? 2 : end + 4).toString("latin1");
      reply.trailers = fieldsOf(text.split("\r\n"));
      reply.whole = true;
      return true;
    }
    const end = this.#held.indexOf("\r\n");
    if (end < 0) return false;
    const size = this.#cut(end + 2).toString("latin1");
    reply.left = Number.parseInt(size, 16);
    if (Number.isNaN(reply.left)) throw new Error(`${JSON.stringify(size)} is no chunk size`);
    reply.inTrailers = reply.left === 0;
    return true;
  }
  #cut(bytes: number): Buffer {
    const cut = this.#held.subarray(0, bytes);
    this.#held = this.#held.subarray(bytes);
    return cut;
  }
}

class Received implements WireReply {
  readonly version: string;
  readonly status: number;
  readonly reason: string;
  readonly headers: RawHeaders;
  framing: WireReply["framing"] = "none";
  trailers: RawHeaders = [];
  whole = false;
  broken = false;
  bodyBytes = 0;
  left = 0;
  afterChunk = false;
  inTrailers = false;
  #chunks: Buffer[] = [];

  constructor(version: string, status: number, reason: string, headers: RawHeaders) {
    this.version = version;
    this.status = status;
    this.reason = reason;
    this.headers = headers;
  }
  add(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.bodyBytes += chunk.length;
  }
  get body(): Buffer {
    if (this.#chunks.length !== 1) this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0]!;
  }
  values(name: string): readonly string[] {
    const lower = name.toLowerCase();
    return this.headers.filter(
      (_, index) => index % 2 === 1 && this.headers[index - 1]!.toLowerCase() === lower,
    );
  }
}

function fieldsOf(lines: readonly string[]): RawHeaders {
  return lines.flatMap((line) => {
    const colon = line.indexOf(":");
    return colon < 0 ? [] : [line.slice(0, colon), line.slice(colon + 1).replace(/^[ \t]+|[ \t]+$/g, "")];
  });
}

/**
 * The load generator's HTTP/1.1 client: one socket, one request at a time, whole requests written as one buffer and
 * replies read without making strings of them. It exists because a general client costs as much CPU as the proxy that
 * is measured, and on two cores would be measured with it.
 */
import { connect, type Socket } from "node:net";

/** What happens to the one request under way. Exactly one of `done` and `fail` is called. */
export interface ReplySink {
  head(status: number): void;
  body(chunk: Buffer, start: number, end: number): void;
  done(): void;
  fail(reason: string): void;
}

type State = "idle" | "head" | "length" | "close" | "chunk-size" | "chunk-data" | "chunk-end" | "trailer";

const HEAD_END = Buffer.from("\r\n\r\n");
const EMPTY = Buffer.alloc(0);

export class Connection {
  readonly #socket: Socket;
  #sink: ReplySink | undefined;
  #state: State = "idle";
  /** Bytes of a head or line that came in parts. */
  #pending: Buffer = EMPTY;
  #left = 0;
  #keepAlive = true;

  constructor(port: number) {
    this.#socket = connect({ port, host: "127.0.0.1", noDelay: true });
    this.#socket.on("data", (chunk: Buffer) => this.#read(chunk));
    this.#socket.on("error", (error) => this.#fail(error.message));
    this.#socket.on("end", () => {
      if (this.#state === "close") this.#done();
      this.#fail("the connection was ended");
      this.#socket.destroy();
    });
    this.#socket.on("close", () => this.#fail("the connection was closed"));
  }

  /** Whether another request can be sent on this connection once the one under way is done. */
  get reusable(): boolean {
    return this.#keepAlive && !this.#socket.destroyed;
  }

  /** Sends `bytes`, a whole request; the caller must not change them before the reply is done. */
  send(bytes: Buffer, sink: ReplySink): void {
    if (this.#sink !== undefined) throw new Error("a request is under way on this connection");
    this.#sink = sink;
    this.#state = "head";
    this.#socket.write(bytes);
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #fail(reason: string): void {
    const sink = this.#sink;
    this.#sink = undefined;
    this.#state = "idle";
    this.#keepAlive = false;
    sink?.fail(reason);
  }

  #done(): void {
    const sink = this.#sink;
    this.#sink = undefined;
    this.#state = "idle";
    sink?.done();
  }

  #read(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length && this.#sink !== undefined) {
      if (this.#state === "head") at = this.#readHead(chunk, at);
      else if (this.#state === "length") at = this.#readBody(chunk, at, () => this.#done());
      else if (this.#state === "close") {
        this.#sink.body(chunk, at, chunk.length);
        at = chunk.length;
      } else at = this.#readChunked(chunk, at);
    }
    if (at < chunk.length) this.#fail("bytes after the end of the reply");
  }

  #readHead(chunk: Buffer, at: number): number {
    let data = chunk;
    let start = at;
    const before = this.#pending.length;
    if (before > 0) {
      data = Buffer.concat([this.#pending, chunk.subarray(at)]);
      start = 0;
    }
    const end = data.indexOf(HEAD_END, start);
    if (end === -1) {
      this.#pending = Buffer.from(data.subarray(start));
      if (this.#pending.length > 65_536) this.#fail("the reply's head is longer than 64 KB");
      return chunk.length;
    }
    this.#pending = EMPTY;
    const head = data.toString("latin1", start, end).toLowerCase();
    const status = Number(head.slice(9, 12));
    const next = before > 0 ? at + end + 4 - before : end + 4;
    if (status >= 100 && status < 200) return next;
    this.#sink?.head(status);
    this.#keepAlive = !/\r\nconnection: *close/.test(head);
    const length = /\r\ncontent-length: *(\d+)/.exec(head);
    if (/\r\ntransfer-encoding: *chunked/.test(head)) this.#state = "chunk-size";
    else if (length !== null) {
      this.#left = Number(length[1]);
      this.#state = "length";
      if (this.#left === 0) this.#done();
    } else {
      this.#keepAlive = false;
      this.#state = "close";
    }
    return next;
  }

  #readBody(chunk: Buffer, at: number, complete: () => void): number {
    const end = Math.min(chunk.length, at + this.#left);
    this.#left -= end - at;
    this.#sink?.body(chunk, at, end);
    if (this.#left === 0) complete();
    return end;
  }

  #readChunked(chunk: Buffer, at: number): number {
    if (this.#state === "chunk-data")
      return this.#readBody(chunk, at, () => {
        this.#state = "chunk-end";
      });
    const newline = chunk.indexOf(10, at);
    if (newline === -1) {
      this.#pending = Buffer.concat([this.#pending, chunk.subarray(at)]);
      return chunk.length;
    }
    const line = this.#pending.toString("latin1") + chunk.toString("latin1", at, newline);
    this.#pending = EMPTY;
    if (this.#state === "chunk-end") this.#state = "chunk-size";
    else if (this.#state === "chunk-size") {
      this.#left = Number.parseInt(line, 16);
      if (Number.isNaN(this.#left)) this.#fail("a chunk without a size");
      this.#state = this.#left === 0 ? "trailer" : "chunk-data";
    } else if (line === "" || line === "\r") this.#done();
    return newline + 1;
  }
}

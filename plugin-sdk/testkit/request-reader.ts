import type { RawHeaders } from "../src/headers.ts";
import { headerValue } from "../src/headers.ts";

/** What a {@link RequestReader} found, in the order of the wire. */
export interface RequestEvents {
  /** A request line and its headers. `bytes` are those of the head, its empty line included. */
  head(head: RequestHead): void;
  /** Body bytes, freed from chunked coding. */
  body(chunk: Buffer): void;
  /** The request is complete; `trailers` are those of a chunked body. */
  end(trailers: RawHeaders): void;
}

export interface RequestHead {
  readonly method: string;
  readonly target: string;
  readonly headers: RawHeaders;
  readonly bytes: Buffer;
}

const CRLF = "\r\n";
type State = "head" | "length" | "chunk-size" | "chunk" | "chunk-end" | "trailers";

/**
 * Splits a connection's bytes into HTTP/1.1 requests (RFC 9112) without judging or changing anything. It is for a
 * test's upstream: what it cannot read it throws over.
 */
export class RequestReader {
  readonly #events: RequestEvents;
  #state: State = "head";
  #held: Buffer = Buffer.alloc(0);
  #left = 0;

  constructor(events: RequestEvents) {
    this.#events = events;
  }
  push(chunk: Buffer): void {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    while (this.#held.length > 0 && this.#step());
  }

  /** Whether something was taken, so that there may be more. */
  #step(): boolean {
    switch (this.#state) {
      case "head":
        return this.#head();
      case "length":
        this.#take();
        if (this.#left === 0) this.#done([]);
        return true;
      case "chunk-size": {
        const line = this.#line();
        if (line === undefined) return false;
        this.#left = Number.parseInt(line, 16);
        if (Number.isNaN(this.#left)) throw new Error(`"${line}" is no chunk size`);
        this.#state = this.#left === 0 ? "trailers" : "chunk";
        return true;
      }
      case "chunk":
        this.#take();
        if (this.#left === 0) this.#state = "chunk-end";
        return true;
      case "chunk-end":
        if (this.#line() === undefined) return false;
        this.#state = "chunk-size";
        return true;
      case "trailers": {
        const alone = this.#held.subarray(0, 2).toString("latin1") === CRLF;
        const end = alone ? 2 : this.#endOfFields();
        if (end === undefined) return false;
        const text = this.#cut(end).toString("latin1");
        this.#done(fieldsOf(text.split(CRLF)));
        return true;
      }
    }
  }
  #head(): boolean {
    const end = this.#endOfFields();
    if (end === undefined) return false;
    const bytes = this.#cut(end);
    const [requestLine = "", ...lines] = bytes.toString("latin1").split(CRLF);
    const [method = "", target = ""] = requestLine.split(" ");
    const headers = fieldsOf(lines);
    const coding = headerValue(headers, "transfer-encoding");
    const length = Number(headerValue(headers, "content-length") ?? 0);
    this.#left = length;
    this.#state = coding !== undefined ? "chunk-size" : "length";
    this.#events.head({ method, target, headers, bytes });
    if (coding === undefined && length === 0) this.#done([]);
    return true;
  }
  #take(): void {
    const bytes = this.#cut(Math.min(this.#left, this.#held.length));
    this.#left -= bytes.length;
    if (bytes.length > 0) this.#events.body(bytes);
  }
  #done(trailers: RawHeaders): void {
    this.#state = "head";
    this.#events.end(trailers);
  }
  #endOfFields(): number | undefined {
    const at = this.#held.indexOf(CRLF + CRLF);
    return at < 0 ? undefined : at + 4;
  }
  #line(): string | undefined {
    const at = this.#held.indexOf(CRLF);
    return at < 0
      ? undefined
      : this.#cut(at + 2)
          .subarray(0, at)
          .toString("latin1");
  }
  #cut(bytes: number): Buffer {
    const cut = this.#held.subarray(0, bytes);
    this.#held = this.#held.subarray(bytes);
    return cut;
  }
}

/** Field lines as name, value pairs, with the case, order and duplicates of the wire. */
function fieldsOf(lines: readonly string[]): RawHeaders {
  return lines.flatMap((line) => {
    const colon = line.indexOf(":");
    return colon < 0 ? [] : [line.slice(0, colon), line.slice(colon + 1).trim()];
  });
}

import http from "node:http";
import { type SseEvent, SseSplitter } from "@tokenman/plugin-sdk";

/** A client that follows an event stream, event by event. */
export class EventClient implements AsyncDisposable {
  readonly events: SseEvent[] = [];
  readonly #comments: string[] = [];
  readonly #request: http.ClientRequest;
  readonly #response: Promise<http.IncomingMessage>;
  #taken = 0;
  #closed = false;
  #wake: (() => void) | undefined;

  constructor(url: string, headers: Readonly<Record<string, string>> = {}) {
    this.#request = http.get(url, { headers, agent: false });
    this.#response = new Promise((resolve, reject) => {
      this.#request.on("error", reject);
      this.#request.on("response", (response) => {
        const splitter = new SseSplitter();
        response.on("data", (chunk: Buffer) => {
          splitter.push(Buffer.from(chunk), (event) => {
            if (event.hasData) this.events.push(event);
            else if (event.comment !== undefined) this.#comments.push(event.comment);
          });
          this.#wake?.();
        });
        response.on("error", () => {});
        response.on("close", () => {
          this.#closed = true;
          this.#wake?.();
        });
        resolve(response);
      });
    });
    this.#response.catch(() => {});
  }
  /** The status of the reply. */
  async status(): Promise<number> {
    return (await this.#response).statusCode!;
  }
  /** The next event; undefined at the end. */
  async next(): Promise<SseEvent | undefined> {
    for (;;) {
      const event = this.events[this.#taken];
      if (event !== undefined) {
        this.#taken++;
        return event;
      }
      if (this.#closed) return undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
  /** The next comment; undefined at the end. */
  async comment(): Promise<string | undefined> {
    while (this.#comments.length === 0 && !this.#closed)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    return this.#comments.shift();
  }
  /** All events up to one of that name. Rejects where the stream ends before. */
  async until(name: string): Promise<SseEvent[]> {
    const events: SseEvent[] = [];
    for (;;) {
      const event = await this.next();
      if (event === undefined) throw new Error(`the stream ended before "${name}"`);
      events.push(event);
      if (event.event === name) return events;
    }
  }
  /** Reads to the end. */
  async rest(): Promise<SseEvent[]> {
    const events: SseEvent[] = [];
    for (let event = await this.next(); event !== undefined; event = await this.next()) events.push(event);
    return events;
  }
  async pause(): Promise<void> {
    (await this.#response).pause();
  }
  async resume(): Promise<void> {
    (await this.#response).resume();
  }
  close(): void {
    this.#request.destroy();
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

import {
  type Dialect,
  encodeSse,
  type Format,
  headerValue,
  type InnerExchange,
  type InnerReply,
  type PublicError,
  recordOf,
  type SseEvent,
  SseSplitter,
  stringOf,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import { type Assembler, UnkeepableError } from "./assembler.ts";
import type { EventLog } from "./event-log.ts";

/** Bytes of the longest event that is read as one; the last one of a Responses stream has all of the reply in it. */
const MAX_EVENT_BYTES = 16 * 1024 * 1024;
/** Bytes of a provider's error that are passed on. */
const MAX_ERROR_BYTES = 256 * 1024;

/** How a turn ended. "complete": the reply is whole, and `added` belongs to the conversation. */
export type TurnEnd =
  | { readonly kind: "complete"; readonly added: readonly Buffer[] }
  | {
      readonly kind: "failed";
      readonly code: string;
      /** Of the reply that refused, with what it says of another try. */
      readonly status?: number;
      readonly retryAfter?: string | undefined;
    }
  | { readonly kind: "interrupted" };

export interface TurnParts {
  readonly exchange: InnerExchange;
  readonly log: EventLog;
  readonly dialect: Dialect;
  readonly format: Format;
  readonly assembler: Assembler;
}

/** One reply on its way from the provider into a session's events. */
export class Turn {
  readonly #parts: TurnParts;
  #interrupted = false;
  #streamError: string | undefined;
  #terminal = false;
  #unkeepable: string | undefined;

  constructor(parts: TurnParts) {
    this.#parts = parts;
  }
  get id(): string {
    return this.#parts.exchange.id;
  }
  /** Calls the provider off, at once. */
  interrupt(): void {
    this.#interrupted = true;
    this.#parts.exchange.abort();
    // It may be waiting for a reader that takes nothing.
    this.#parts.log.progressed();
  }

  /** Passes the reply's events on, to its end. Never rejects. */
  async run(): Promise<TurnEnd> {
    try {
      const reply = await this.#parts.exchange.reply;
      if (reply.status >= 400) return await this.#refused(reply);
      const type = headerValue(reply.headers, "content-type") ?? "";
      if (!type.trimStart().toLowerCase().startsWith("text/event-stream")) {
        this.#parts.exchange.abort();
        return this.#fail("TM_SESSION_REPLY", 502, "The provider's answer is not a stream of events.");
      }
      await this.#pass(reply);
    } catch (cause) {
      if (this.#interrupted) return { kind: "interrupted" };
      // Behind its regular end nothing of the reply can be missing.
      if (!this.#terminal) return this.#broken(cause);
    }
    if (this.#interrupted) return { kind: "interrupted" };
    // The provider's own event has told it already.
    if (this.#streamError !== undefined) return { kind: "failed", code: this.#streamError };
    if (!this.#terminal) return this.#broken(undefined);
    return this.#kept();
  }

  async #pass(reply: InnerReply): Promise<void> {
    const splitter = new SseSplitter({ maxEventBytes: MAX_EVENT_BYTES });
    let events: SseEvent[] = [];
    const take = (event: SseEvent): void => void events.push(event);
    const called = (): boolean => this.#interrupted;
    const pass = async (): Promise<void> => {
      for (const event of events) {
        await this.#parts.log.room(event.raw.length, called);
        if (this.#interrupted) return;
        this.#event(event);
      }
      events = [];
    };
    for await (const chunk of reply.body) {
      splitter.push(chunk, take);
      await pass();
    }
    splitter.flush(take);
    await pass();
  }
  #event(event: SseEvent): void {
    const { log, dialect, assembler } = this.#parts;
    // What is no event for a reader: comments, and the line that asks for a reconnection time.
    if (!event.hasData && !event.oversize) return;
    const verdict = dialect.judgeEvent(event);
    if (verdict.kind === "terminal") this.#terminal = true;
    else if (verdict.kind === "error") this.#streamError ??= verdict.type;
    if (this.#unkeepable === undefined) {
      try {
        assembler.event(event);
      } catch (cause) {
        this.#unkeepable = reasonOf(cause);
      }
    }
    log.push(blockOf(event));
  }
  #kept(): TurnEnd {
    if (this.#unkeepable === undefined) {
      try {
        const added = this.#parts.assembler.finish().map((message) => Buffer.from(message));
        return { kind: "complete", added };
      } catch (cause) {
        this.#unkeepable = reasonOf(cause);
      }
    }
    return this.#fail("TM_SESSION_REPLY", 502, `The conversation is as before: ${this.#unkeepable}.`);
  }

  /** A reply that is an error: the provider's body goes out as it is, where it is JSON. */
  async #refused(reply: InnerReply): Promise<TurnEnd> {
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of reply.body) {
      bytes += chunk.length;
      if (bytes > MAX_ERROR_BYTES) break;
      chunks.push(chunk);
    }
    const body = Buffer.concat(chunks).toString();
    const { status } = reply;
    const retryAfter = headerValue(reply.headers, "retry-after");
    if (bytes <= MAX_ERROR_BYTES && isObject(body)) {
      this.#parts.log.push(encodeSse({ event: "error", data: body.trim() }));
      return { kind: "failed", code: codeIn(body) ?? `status_${status}`, status, retryAfter };
    }
    const message = `The provider answered with status ${status}, and no error that can be passed on.`;
    return { ...this.#fail(`status_${status}`, status, message), status, retryAfter };
  }
  #broken(cause: unknown): TurnEnd {
    const code = cause instanceof TokenmanError ? cause.code : "TM_UPSTREAM_CUT";
    const why =
      code === "TM_SHUTTING_DOWN" ? "TokenMan is shutting down" : "the provider broke off its answer";
    const status = cause instanceof TokenmanError ? cause.status : 502;
    return this.#fail(code, status, `The answer is not whole: ${why}. The conversation is as before.`);
  }
  #fail(code: string, status: number, message: string): { readonly kind: "failed"; readonly code: string } {
    this.#parts.log.push(errorBlock(this.#parts.format, { code, status, message }, this.id));
    return { kind: "failed", code };
  }
}

/** An error as an event, in the vendor's shape. */
function errorBlock(format: Format, error: PublicError, requestId: string): Buffer {
  let data = JSON.stringify({ error });
  try {
    const { body } = format.errorReply(error, requestId);
    if (typeof body === "string" || Buffer.isBuffer(body)) data = body.toString().trim();
  } catch {
    // A format is a plugin's. An error must come out all the same.
  }
  return encodeSse({ event: "error", data });
}

/** The event's own bytes, less what would number it otherwise, or stand before the number. */
function blockOf(event: SseEvent): Buffer {
  if (event.oversize) return encodeSse({ event: "tokenman.oversize", data: String(event.raw.length) });
  const { raw } = event;
  const hasMark = raw[0] === 0xef && raw[1] === 0xbb && raw[2] === 0xbf;
  if (event.id === undefined && !hasMark) return raw;
  const name = event.event === "message" ? {} : { event: event.event };
  return encodeSse({ ...name, data: event.data });
}

function reasonOf(cause: unknown): string {
  return cause instanceof UnkeepableError ? cause.message : "the reply could not be read";
}

/** What an error of either vendor's shape calls itself. */
function codeIn(body: string): string | undefined {
  const error = recordOf(recordOf(JSON.parse(body))?.["error"]);
  return stringOf(error?.["code"]) ?? stringOf(error?.["type"]);
}

function isObject(text: string): boolean {
  try {
    return recordOf(JSON.parse(text)) !== undefined;
  } catch {
    return false;
  }
}

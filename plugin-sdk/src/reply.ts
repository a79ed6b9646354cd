import type { ErrorCode } from "./errors.ts";
import type { Attempt } from "./exchange.ts";
import type { RawHeaders } from "./headers.ts";
import type { SseEvent } from "./sse.ts";

/** What a plugin or an in-process provider answers with. The kernel makes a {@link Reply} of it. */
export interface ReplyInit {
  readonly status: number;
  /** name, value, name, value …; Content-Length and Connection are the kernel's. */
  readonly headers?: RawHeaders;
  /** Bytes at once, or a stream of them. A stream that throws destroys the client's socket. */
  readonly body?: Buffer | string | AsyncIterable<Buffer>;
  /** Sends bytes that are at hand without their length, in chunks, as a stream goes out. */
  readonly chunked?: boolean;
}

/** Changes a stream event by event, synchronously. Return the same event to pass its very bytes. */
export interface EventTransform {
  /** The event, a replacement's bytes, several, or nothing to drop it. */
  event(event: SseEvent): SseEvent | Buffer | readonly (SseEvent | Buffer)[] | undefined;
  /** Called at a regular end: what is still held back. */
  flush?(): Buffer | undefined;
}

/** How a reply's body came to its end, seen from the place where an observer was attached. */
export type BodyEnd = "complete" | "upstream-cut" | "aborted" | "failed";

/** Sees a copy, decoded from any Content-Encoding; cannot change or delay the client's bytes. */
export interface ReplyObserver {
  /** Events of a `text/event-stream` reply. */
  event?(event: SseEvent): void;
  /** Decoded bytes, of any reply. */
  data?(chunk: Buffer): void;
  /** Exactly once. `truncated` says that the copy stopped at its cap while the client's went on. */
  end?(end: BodyEnd, truncated: boolean): void;
}

/** A reply that several exchanges consume: each join replays it from the first byte and then follows. */
export interface SharedReply {
  /** The head that is shared: rewrites attached before are considered in it. */
  readonly status: number;
  readonly headers: RawHeaders;
  /** A reply with the same head; undefined once the buffer cap was passed or the source failed. */
  join(): ReplyInit | undefined;
  /**
   * All its bytes, as they are sent, once the body has come to its regular end; undefined before that, beyond the buffer
   * cap, with trailers, and where a rewrite attached before failed in the middle. It may be a part of larger memory: who
   * keeps it for long makes a copy.
   */
  whole(): Buffer | undefined;
}

/**
 * What will be sent to the client. The `response` hook gets it at the head, before any byte of its body was sent;
 * what you attach there applies after what was attached before you.
 */
export interface Reply {
  status: number;
  /** Replace, never mutate: `reply.headers = withHeader(reply.headers, …)`. */
  headers: RawHeaders;
  /** Who made it: the provider, a plugin (by name), or the kernel (an error of TokenMan's own). */
  readonly origin: "provider" | "plugin" | "kernel";
  /** Name of the plugin that answered; undefined otherwise. */
  readonly plugin: string | undefined;
  /** The attempt whose reply it is; undefined unless `origin` is "provider". */
  readonly attempt: Attempt | undefined;
  /** TokenMan's own error that this reply is; undefined for any other. */
  readonly refusal: { readonly code: ErrorCode; readonly message: string } | undefined;
  /** Whether the body is an SSE stream (`text/event-stream`). */
  readonly streaming: boolean;
  /** Rewrites events. The kernel decodes a compressed stream first and drops its Content-Encoding. */
  mapEvents(transform: EventTransform): void;
  observe(observer: ReplyObserver): void;
  /**
   * The whole decoded body of a buffered reply. Throws TM_REPLY_TOO_LARGE beyond `server.max_response_size`, and
   * TM_REPLY_STREAMING on a stream. Without a `replaceBody` the client still gets the original bytes.
   */
  read(): Promise<Buffer>;
  /** Puts other bytes in the place of a buffered body. */
  replaceBody(body: Buffer | string): void;
  /** Lets other exchanges consume the same body, up to `maxBytes` of replay buffer. */
  share(options: { readonly maxBytes: number }): SharedReply;
}

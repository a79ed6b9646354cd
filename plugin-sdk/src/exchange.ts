import type { Dialect, EventVerdict, RequestDescription, Segment, SegmentSpan, Usage } from "./dialect.ts";
import type { ErrorCode } from "./errors.ts";
import type { ClientCredential, Format, PublicError } from "./format.ts";
import type { RawHeaders } from "./headers.ts";
import type { ExchangeOrigin } from "./inner-exchange.ts";
import type { JsonNode } from "./json-index.ts";
import type { Provider, Secret } from "./provider.ts";
import type { BodyEnd, ReplyInit } from "./reply.ts";

/** The request as the client sent it. Immutable. */
export interface ClientRequest {
  readonly method: string;
  /** Path and query as received, less a `/p/NAME` prefix. */
  readonly target: string;
  /** Path alone, as its dialect writes it: in one spelling, with the `/v1` that some clients omit. Else as received. */
  readonly path: string;
  /** As on the wire: case, order and duplicates kept. */
  readonly headers: RawHeaders;
  header(name: string): string | undefined;
  /** Bytes as received; undefined while an uninspected body streams through. */
  readonly rawBody: Buffer | undefined;
  /**
   * The body decoded from its Content-Encoding; undefined while it streams, for an unknown encoding, or beyond the
   * decompression bound.
   */
  readonly body: Buffer | undefined;
  /** Address of the peer. */
  readonly remoteAddress: string;
}

/** RFC 6902-like edit of the request's JSON. Pointers refer to the body as the client sent it. */
export interface JsonPatch {
  readonly op: "add" | "replace" | "remove";
  readonly pointer: string;
  readonly value?: unknown;
  /** In the place of `value`: its JSON source text, which goes out as it is. */
  readonly json?: string;
}

/** How the client's credential is used with a candidate. */
export type CandidateCredential =
  /** The client's own headers go out as they came. */
  | { readonly kind: "client" }
  /** The client's credential is taken off, and this key presented. */
  | { readonly kind: "key"; readonly secret: Secret }
  /** The client's credential is taken off, nothing put on. */
  | { readonly kind: "none" };

/** A provider that could serve an exchange. Written by the router, tried in order. */
export interface Candidate {
  readonly provider: Provider;
  readonly credential: CandidateCredential;
  /** Name to send in place of the client's; undefined keeps it. */
  readonly model?: string;
  /** Which of the provider's own keys it is, where there are several: "openai#2". Limits and cool-downs are each key's own. */
  readonly account?: string;
  /** Why it is on the list, in words: shown by `explain` and kept in the ledger. */
  readonly reason: string;
}

/** How one attempt ended. */
export type AttemptResult =
  | { readonly kind: "reply"; readonly status: number; readonly body: BodyEnd }
  /** Skipped in `beforeUpstream`: nothing was sent. */
  | {
      readonly kind: "skipped";
      readonly by: string;
      readonly reason: string;
      /** Milliseconds, from then on, after which it may be tried; undefined where nobody can tell. */
      readonly retryAfterMs?: number;
    }
  /** The connection failed, or timed out before the head. */
  | {
      readonly kind: "error";
      readonly code: ErrorCode;
      readonly message: string;
      readonly bytesSent: boolean;
    }
  /** Called off: another attempt won, or nobody wanted the reply any more. */
  | { readonly kind: "cancelled" };

/** One try against one provider within an exchange. */
export interface Attempt {
  /** 1 for the first. */
  readonly number: number;
  readonly candidate: Candidate;
  readonly provider: Provider;
  /** Outgoing headers; replace, never mutate. Hop-by-hop and `X-Tokenman-*` are already gone. */
  headers: RawHeaders;
  /** Edits of this attempt only, over those of the exchange (model alias, provider quirks). */
  patch(patches: readonly JsonPatch[]): void;
  readonly signal: AbortSignal;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  /** Milliseconds from the start to the head, and to the first body byte; undefined until then. */
  readonly headMs: number | undefined;
  readonly firstByteMs: number | undefined;
  /** Milliseconds from the start to its end, or up to now where it has not ended. */
  readonly durationMs: number;
  /** The status of its head, once that came. */
  readonly status: number | undefined;
  /** The head's headers, once it came. */
  readonly replyHeaders: RawHeaders | undefined;
  /** What the provider billed, as far as known. Never one that cannot be true ({@link usageFault}). */
  readonly usage: Usage | undefined;
  /** Why what the provider told of its usage cannot be true, in words; `usage` is undefined then. */
  readonly usageFault: string | undefined;
  /** An error that the provider reported inside a 200 stream; known only where usage is tracked. */
  readonly streamError: Extract<EventVerdict, { readonly kind: "error" }> | undefined;
  /** Whether that error came before anything else: the provider refused, and nothing was generated. */
  readonly failedFirst: boolean;
  /** Whether the regular end of its stream was seen; undefined where nobody looks: no stream, or usage not tracked. */
  readonly terminal: boolean | undefined;
  /** Set when it ended. */
  readonly result: AttemptResult | undefined;
  /** Sets a plugin's own note on this attempt; see {@link slot}. */
  set<T>(slot: Slot<T>, value: T): void;
  get<T>(slot: Slot<T>): T | undefined;
}

/** What a `beforeUpstream` tap may say: nothing (go on), skip this candidate, or answer the client now. */
export type Verdict =
  /** The reason is read by people, and may reach the client; `retryAfterMs` tells when the candidate may be tried. */
  { readonly skip: string; readonly retryAfterMs?: number } | { readonly answer: ReplyInit };

/** A typed place on an exchange or attempt for a plugin's own data. */
export interface Slot<T> {
  readonly key: symbol;
  readonly type?: T;
}

/** Makes a slot. The name is for debugging; two slots are never the same. */
export function slot<T>(name: string): Slot<T> {
  return { key: Symbol(name) };
}

/** How an exchange ended. Given to `lifecycle: settled` exactly once, always. */
export interface Outcome {
  readonly kind: /** The whole reply reached the client (whatever its status). */
    | "answered"
    /** The client left before the end. */
    | "aborted"
    /** The upstream broke after the head was sent; the client's socket was destroyed. */
    | "partial"
    /** TokenMan answered with an error of its own. */
    | "refused"
    /** TokenMan shut down, or failed, before the client had its answer. */
    | "failed";
  /** The status sent; 499 where the client left before any was. */
  readonly status: number;
  readonly origin: "provider" | "plugin" | "kernel" | undefined;
  /** Of TokenMan's own error, or of what broke the stream. */
  readonly code: ErrorCode | undefined;
  readonly message: string | undefined;
  /** Body bytes handed to the client's socket. */
  readonly bytesSent: number;
  /** Milliseconds from the request's head to the end, and to the first reply byte. */
  readonly durationMs: number;
  readonly firstByteMs: number | undefined;
}

/** One client request and all that happens to it. */
export interface Exchange {
  /** UUID v7: sorts by time. Sent as `X-Tokenman-Request-Id`. */
  readonly id: string;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly project: string;
  /** Undefined for a client's. A plugin that makes exchanges of its own tells them by it from those it is to act on. */
  readonly madeBy?: ExchangeOrigin | undefined;
  readonly request: ClientRequest;
  /** Undefined for an opaque passthrough. */
  readonly dialect: Dialect | undefined;
  /** The family of the client: its dialect's, or for an opaque request the one that claims it. */
  readonly format: Format | undefined;
  /** Parsed at first use; undefined for an opaque request or an unreadable body. */
  readonly description: RequestDescription | undefined;
  /** The client's session id, else a hash of credential and the beginnings of system and first user message. Worked out at first use. */
  readonly session: string;
  readonly credential: ClientCredential | undefined;
  /** A keyed hash (stable for one data dir) to tell credentials apart; empty where there is none. */
  readonly credentialHash: string;
  /** Traffic paid by a subscription: only explicit security rules may change it. */
  readonly subscription: boolean;
  /** Whether the client asked with `X-Tokenman-NoCompress` that nothing be rewritten to save tokens. */
  readonly noCompress: boolean;
  readonly segments: readonly Segment[];
  /**
   * Where the segments stand, in the same order: for who looks for few among the hundreds that an agent sends with every
   * turn. A span may be the same object as in the turn before.
   */
  readonly spans: readonly SegmentSpan[];
  /** The segment at one of {@link spans}. */
  segmentOf(span: SegmentSpan): Segment;
  /** The value at a JSON pointer in the body as the client sent it; undefined where there is none. */
  read(pointer: string): unknown;
  /** The place of that value in the body. All that asks for places, and all edits, share one scan of the body. */
  node(pointer: string): JsonNode | undefined;
  /** Whether what the pointer names will be sent: false where an edit so far replaced or removed it, or what it is in. */
  stands(pointer: string): boolean;
  /** Replaces a segment's text. Throws TM_SEGMENT_SEALED, TM_EDIT_CONFLICT. */
  edit(segment: Segment, text: string): void;
  /** Throws TM_SEGMENT_SEALED for what is in a sealed segment; a message may go as a whole with what is signed in it. */
  patch(patches: readonly JsonPatch[]): void;
  /** Whether any plugin changed the body. */
  readonly edited: boolean;
  /** Written by the router; replaced, never mutated. */
  candidates: readonly Candidate[];
  /** Candidates ruled out by the router, with the reason. */
  ruledOut: readonly { readonly provider: string; readonly reason: string }[];
  readonly attempts: readonly Attempt[];
  /** Fires when nobody wants the answer any more. */
  readonly signal: AbortSignal;
  /** Asks that every attempt's usage be read as its reply passes; without a caller nothing is parsed. Before dispatch. */
  trackUsage(): void;
  /** Whether anybody asked for that. */
  readonly usageTracked: boolean;
  /** Keeps the upstream going although the client may leave, until the returned function is called. */
  retain(): () => void;
  /** Waits without using up the hook's time. */
  wait<T>(promise: Promise<T>): Promise<T>;
  /** An error in the client's dialect, to return from a hook. */
  refuse(
    error: Omit<PublicError, "status"> & { readonly status?: number; readonly code: ErrorCode },
  ): ReplyInit;
  set<T>(slot: Slot<T>, value: T): void;
  get<T>(slot: Slot<T>): T | undefined;
}

import type { RawHeaders } from "./headers.ts";
import type { JsonNode } from "./json-index.ts";
import type { SseEvent } from "./sse.ts";

/** A method and an exact path, written with its `/v1` (the kernel also serves it without). */
export interface DialectRoute {
  readonly method: string;
  /** Absolute path; `:name` stands for one path segment, `:model` for one that names the model. */
  readonly path: string;
}

/** What a dialect can say about a request without changing it. */
export interface RequestDescription {
  /** Undefined where the body names none, or is not what the dialect expects. */
  readonly model: string | undefined;
  /** JSON pointer of the model's name; undefined where the path carries it or there is none. */
  readonly modelPointer: string | undefined;
  readonly stream: boolean;
  /** The client's own cap on the output, in tokens. */
  readonly maxOutputTokens: number | undefined;
  /** What the client asks to be served with, where it says so: prices depend on it. */
  readonly serviceTier?: string | undefined;
  readonly speed?: string | undefined;
  /** Whether the request offers tools, and whether the provider itself runs some of them. */
  readonly tools: "none" | "client" | "server";
  /**
   * What the request itself says of chance: "fixed" asks for none of it (temperature 0, or a seed), "random" for some (a
   * temperature above 0, several choices). Undefined where it leaves that to the provider.
   */
  readonly sampling?: "fixed" | "random" | undefined;
  /** Whether the request changes what the provider keeps (a conversation of its own), or is answered later. */
  readonly stateful?: boolean;
  /**
   * How the conversation begins ({@link openingOf}), which tells it from others at each of its turns. Where a dialect
   * does not say, its segments are read for it, all of them.
   */
  readonly opening?: string;
}

export type SegmentRole = "system" | "user" | "assistant" | "tool" | "other";
export type SegmentKind =
  | "system"
  | "tool-definition"
  | "text"
  | "tool-call"
  | "tool-result"
  | "thinking"
  | "attachment"
  | "other";

/**
 * One piece of text in a request. `text` is the value as the plugins before you left it; `node` is its place in the
 * original body.
 */
export interface Segment {
  readonly pointer: string;
  readonly role: SegmentRole;
  readonly kind: SegmentKind;
  /** Position of the message that holds it (0 is the first); -1 for system and tool definitions. */
  readonly message: number;
  /** Thinking, signatures, encrypted or otherwise signed content: an edit of it is refused. */
  readonly sealed: boolean;
  /** The tool's name for calls, results and definitions, where known. */
  readonly tool?: string;
  readonly node: JsonNode;
  /** Bytes of its JSON in the original body. */
  readonly byteLength: number;
  /** The current text, with the edits made so far. For non-string nodes the raw JSON. */
  readonly text: string;
  /** A content hash of the original bytes: the key for whatever is worked out once per segment. */
  readonly hash: string;
}

/** A segment as a dialect lists it: the value in the bytes [start, end). The kernel adds the rest. */
export interface SegmentSpan extends Omit<Segment, "node" | "byteLength" | "text" | "hash"> {
  readonly start: number;
  readonly end: number;
  /** The content hash once it was worked out: a span may be listed again in the next turn. */
  hash?: string;
}

/**
 * Tokens as the provider billed them. All counts are exact when `source` is "provider". The kinds are disjoint:
 * total input = input + cacheRead + cacheWrite5m + cacheWrite1h; `reasoningTokens` is a part of `outputTokens`.
 */
export interface Usage {
  readonly source: "provider" | "estimate";
  readonly inputTokens: number;
  readonly cacheReadTokens: number;
  readonly cacheWrite5mTokens: number;
  readonly cacheWrite1hTokens: number;
  readonly outputTokens: number;
  readonly reasoningTokens: number;
  /** Uses of tools that the provider runs and bills apart, by the vendor's name (e.g. `web_search_requests`). */
  readonly serverTools: Readonly<Record<string, number>>;
  readonly serviceTier: string | undefined;
  /** The speed that was billed ("fast"), where the vendor prices by it and says so. */
  readonly speed?: string;
  /** Where the model ran ("us"), where the vendor prices by it and says so. */
  readonly region?: string;
  /** The model that answered, as the provider names it. */
  readonly model: string | undefined;
  /** Whether the provider reported the end of the reply (a cut stream leaves partial figures). */
  readonly complete: boolean;
}

/** What one event of a stream means to the kernel and to whoever judges the upstream. */
export type EventVerdict =
  | { readonly kind: "content" }
  /** Pings, comments: passes at once, says nothing about success. */
  | { readonly kind: "idle" }
  /** The provider reports a failure inside a 200. */
  | {
      readonly kind: "error";
      readonly type: string;
      readonly status: number | undefined;
      readonly retryable: boolean;
      readonly message: string;
    }
  /** The regular end: a stream without one of these was cut. */
  | { readonly kind: "terminal" };

/** Follows one reply and reads the usage out of it. One instance an attempt; never throws. */
export interface UsageReader {
  /** One event of a streamed reply. */
  event(event: SseEvent): void;
  /** The whole decoded body of a buffered reply. */
  body(body: Buffer, status: number): void;
  /**
   * What is known so far; undefined where the reply carried no usage at all. Counts are given as they were told, NaN for
   * what is no count (see `usageCountOf`): whether they can be true is judged by who asks.
   */
  usage(): Usage | undefined;
}

/** What the provider's error reply means, read from its status, headers and (bounded) body. */
export interface ErrorVerdict {
  readonly type: string | undefined;
  readonly code: string | undefined;
  readonly message: string | undefined;
  /** False for a spend cap, an exhausted quota, or a bad request: trying again cannot help. */
  readonly retryable: boolean;
}

/** One wire format. Contributed by a plugin under the kind `dialect`. All functions are pure and never throw. */
export interface Dialect {
  /** "anthropic-messages", "openai-chat" … */
  readonly name: string;
  /** The {@link Format} it belongs to. */
  readonly format: string;
  readonly routes: readonly DialectRoute[];
  /** Decides between dialects that share a route; absent means it accepts all. */
  accepts?(headers: RawHeaders): boolean;
  /** Whether a request generates tokens (and so has a model, usage and a price). */
  readonly generates: boolean;
  /** Whether its requests ask which models there are. They are answered from what all providers say. */
  readonly listsModels?: boolean;
  /** Reads what it can from a decoded body; undefined where it is not a JSON object. */
  describe(body: Buffer): RequestDescription | undefined;
  segments(body: Buffer): readonly SegmentSpan[];
  usageReader(): UsageReader;
  judgeEvent(event: SseEvent): EventVerdict;
  /**
   * What an event of a streamed reply adds to the generated text, thinking and tool arguments included; empty where it
   * adds nothing. For estimates of a reply that broke off before its usage came.
   */
  outputText?(event: SseEvent): string;
  judgeError(status: number, headers: RawHeaders, body: Buffer): ErrorVerdict;
}

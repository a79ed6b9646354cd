import type { RawHeaders } from "./headers.ts";
import type { ModelListing } from "./model-listing.ts";
import type { ReplyInit } from "./reply.ts";

/** What identifies the sender of a request, read from its headers by a {@link Format}. */
export interface ClientCredential {
  readonly kind: "key" | "oauth";
  /** Lower-case name of the header that carried it. */
  readonly header: string;
  /** The secret itself. Never log it; compare and group by {@link Exchange.credentialHash}. */
  readonly secret: string;
}

/** What a vendor-shaped error is made from. Holds nothing internal: it is shown to the client. */
export interface PublicError {
  readonly code: string;
  readonly status: number;
  readonly message: string;
  /** Extra response headers (`Retry-After`, `x-should-retry`), as name, value pairs. */
  readonly headers?: RawHeaders;
  /** Facts for machines, placed in the body where the shape has room (period, limit, spent …). */
  readonly details?: Readonly<Record<string, unknown>>;
}

/**
 * A vendor's family of dialects ("anthropic", "openai"): where its servers are, how it takes a key, and how it
 * words an error. Contributed by a plugin under the kind `format`.
 */
export interface Format {
  readonly name: string;
  /** Origin plus optional path prefix that comes before `/v1/…`, without a trailing slash. */
  readonly defaultBase: string;
  /** Host names that belong to the vendor; decides the default format of a configured `api_base`. */
  readonly hosts: readonly string[];
  /** Lower-case names of the headers that can carry a credential of this family. */
  readonly credentialHeaders: readonly string[];
  /** The credential in a request's headers, or undefined where there is none. */
  credential(headers: RawHeaders): ClientCredential | undefined;
  /** The client's own session id, where one of this vendor's clients sent it. */
  sessionId(headers: RawHeaders): string | undefined;
  /** Whether the traffic is billed to a subscription (an OAuth token or its beta header); in doubt true. */
  isSubscription(headers: RawHeaders): boolean;
  /** The headers (name, value pairs) that present `secret` to the vendor. */
  authorize(secret: string): RawHeaders;
  /**
   * Whether a request to a path that no dialect claims bears this vendor's marks: its version header, the shape of its
   * keys, or, where `path` is given, a path that only this vendor has.
   */
  claims(headers: RawHeaders, path?: string): boolean;
  /**
   * Whether a request that no dialect reads costs nothing with this vendor: it reads, counts, stores or ends something.
   * Where a format does not say, only what is no POST is free.
   */
  isFree?(method: string, path: string): boolean;
  /** How the vendor lists models; undefined where it does not. */
  readonly models?: ModelListing;
  /** An error in the vendor's shape. `requestId` is TokenMan's. */
  errorReply(error: PublicError, requestId: string): ReplyInit;
}

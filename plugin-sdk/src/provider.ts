import type { Attempt, Exchange } from "./exchange.ts";
import type { ListedModel } from "./model-listing.ts";
import type { ReplyInit } from "./reply.ts";

/** A secret that does not show when logged, inspected, interpolated or serialised. `reveal()` gives it. */
export class Secret {
  readonly #value: string;
  constructor(value: string) {
    this.#value = value;
  }
  reveal(): string {
    return this.#value;
  }
  toString(): string {
    return "[secret]";
  }
  toJSON(): string {
    return "[secret]";
  }
  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return "[secret]";
  }
}

/** Time-outs of one provider's connections, all in milliseconds; 0 means none. */
export interface ProviderTimeouts {
  /** From the first look-up of its address to a connection that can carry the request: proxies and TLS included. */
  readonly connectMs: number;
  /** From the request's last byte to the reply's head; and, where connections are limited, for a free one. */
  readonly headMs: number;
  /** Between two bytes of the reply, or of a request that is taken slowly. Undefined: `server.stream_timeout`. */
  readonly idleMs: number | undefined;
  /** From the attempt's beginning to the reply's last byte, whatever happens in between. Not given: none. */
  readonly totalMs?: number | undefined;
}

/** How a provider is reached and how its connections are kept. What is not given is the kernel's to choose. */
export interface ProviderConnection {
  /** Connections at once; a request beyond them waits for one. 0 or not given: no limit. */
  readonly maxConnections?: number | undefined;
  /** How long an unused connection is kept. 0: not at all. */
  readonly keepAliveMs?: number | undefined;
  /** A connection older than this takes no further request, so that a changed DNS record is followed. 0: any age. */
  readonly maxAgeMs?: number | undefined;
  /** URL of the proxy (its password with it), or "none". Not given: what the environment says. */
  readonly proxy?: Secret | "none" | undefined;
  /** Certificates in PEM that are trusted beside those that the process trusts. */
  readonly ca?: string | undefined;
  /** The certificate that this side shows, in PEM, with its key. */
  readonly clientCertificate?:
    | {
        readonly cert: string;
        readonly key: Secret;
        readonly passphrase?: Secret | undefined;
      }
    | undefined;
  /** The name that is asked for, and that the server's certificate must have; not given: the host's. */
  readonly serverName?: string | undefined;
}

/**
 * A configured upstream. Contributed under the kind `provider`. Either it has an `apiBase` and is reached over HTTP,
 * or it answers in-process through `answer`.
 */
export interface Provider {
  readonly name: string;
  readonly format: string;
  /** All the formats it speaks, where there are more than `format`; see {@link speaks}. */
  readonly formats?: readonly string[];
  /** Origin plus path prefix before `/v1/…`, without a trailing slash; undefined for an in-process provider. */
  readonly apiBase: string | undefined;
  /** Models it serves: exact names or globs with `*`. Empty: any model of its format. */
  readonly models: readonly string[];
  /** Lower goes first among providers that serve the same model. */
  readonly priority: number;
  readonly timeouts: ProviderTimeouts;
  /** Not given: the kernel's defaults. Read once, before the first request. */
  readonly connection?: ProviderConnection | undefined;
  /** Who owns the credential: see DESIGN, Credentials. "none" is a local server that wants no key. */
  readonly auth: "client" | "key" | "none";
  /** Resolves the provider's own key; undefined where it has none configured. Throws TM_KEY_UNAVAILABLE. */
  key?(): Promise<Secret | undefined> | Secret | undefined;
  /** The models of a provider in this process, for lists of models. */
  listModels?(): readonly ListedModel[];
  /** Serves a request in this process. `attempt.signal` fires when nobody wants the answer any more. */
  answer?(request: UpstreamRequest, exchange: Exchange, attempt: Attempt): Promise<ReplyInit> | ReplyInit;
}

/** Whether the provider takes requests of this format as they are. */
export function speaks(provider: Provider, format: string): boolean {
  return provider.format === format || provider.formats?.includes(format) === true;
}

/** A request as it goes out, after edits and patches. */
export interface UpstreamRequest {
  readonly method: string;
  /** Path and query as sent upstream. */
  readonly path: string;
  readonly headers: readonly string[];
  readonly body: Buffer;
}

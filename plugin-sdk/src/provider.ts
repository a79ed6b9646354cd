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
  readonly connectMs: number;
  /** From the request's last byte to the reply's head. */
  readonly headMs: number;
  /** Between two bytes of the reply. */
  readonly idleMs: number;
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

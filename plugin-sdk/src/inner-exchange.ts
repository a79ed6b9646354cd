import type { Exchange } from "./exchange.ts";
import type { RawHeaders } from "./headers.ts";

/** A request that a plugin makes in the place of a client; see `HostInfo.exchange`. */
export interface InnerRequest {
  /** Name of the plugin that asks. */
  readonly plugin: string;
  /** Default "POST". */
  readonly method?: string;
  /** Path, from its `/v1` on, and query. */
  readonly path: string;
  /**
   * As a client would send them: its credential, the vendor's version, `X-Tokenman-Cache`. TokenMan's own token and what
   * belongs to one connection are taken off, Content-Length is written anew.
   */
  readonly headers: RawHeaders;
  readonly body: Buffer;
  /** Default: that of `parent`, else "default". */
  readonly project?: string | undefined;
  /** What `exchange.session` says. Default: what the request says of itself, as any other. */
  readonly session?: string | undefined;
  /**
   * The exchange in whose course this one is made. It goes on while TokenMan drains, as its parent does. Exchanges nest at
   * most {@link MAX_NESTED} deep.
   */
  readonly parent?: Exchange | undefined;
}

/** How deep exchanges of plugins may nest: a plugin that taps requests meets its own, too. */
export const MAX_NESTED = 4;

/** An exchange that a plugin began. */
export interface InnerExchange {
  /** That of the exchange, as in the ledger. */
  readonly id: string;
  /**
   * The reply, when its head is there: also that of a refusal or failure, in the dialect's shape. Rejects with
   * TM_CLIENT_GONE after `abort`.
   */
  readonly reply: Promise<InnerReply>;
  /** Leaves, as a client does that closes its connection. Safe at any time, more than once. */
  abort(): void;
}

export interface InnerReply {
  readonly status: number;
  readonly headers: RawHeaders;
  /**
   * Once, decoded from its Content-Encoding where that is known. Read it to its end, or break off (`return`, `abort`): what
   * is not read is held back, and so is the provider. Throws what broke it: TM_UPSTREAM_CUT, TM_SHUTTING_DOWN …
   */
  readonly body: AsyncIterable<Buffer>;
}

/** Who began an exchange that no client did. */
export interface ExchangeOrigin {
  readonly plugin: string;
  /** Id of the exchange in whose course it was made. */
  readonly parent: string | undefined;
  /** 1 where that is a client's, or there is none. */
  readonly depth: number;
}

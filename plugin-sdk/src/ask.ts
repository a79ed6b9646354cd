import type { RawHeaders } from "./headers.ts";

/** Something that a plugin asks a provider on TokenMan's own account; see `HostInfo.ask`. */
export interface Question {
  readonly method: string;
  /** Path, from its `/v1` on, and query. */
  readonly path: string;
  /** As they go out, the credential among them: whose it is, is the asker's to see to. Hop-by-hop ones are taken off. */
  readonly headers: RawHeaders;
  readonly body?: Buffer;
  /** Milliseconds until the whole answer must be there. */
  readonly timeoutMs: number;
  /** Bytes of the largest answer that is taken, decoded. */
  readonly maxBytes: number;
}

/** What the provider answered. */
export interface Answer {
  readonly status: number;
  readonly headers: RawHeaders;
  /** Decoded from its Content-Encoding. */
  readonly body: Buffer;
}

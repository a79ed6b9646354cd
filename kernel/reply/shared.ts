import type { RawHeaders, ReplyInit, SharedReply } from "@tokenman/plugin-sdk";
import { followingBody } from "./reply-init.ts";
import type { ShareBuffer } from "./share.ts";

/** A reply that others may join. A class, as closures in a literal would keep much garbage alive through V8's scavenges. */
export class Shared implements SharedReply {
  readonly status: number;
  readonly headers: RawHeaders;
  readonly #buffer: ShareBuffer;

  constructor(status: number, headers: RawHeaders, buffer: ShareBuffer) {
    this.status = status;
    this.headers = headers;
    this.#buffer = buffer;
  }
  join(): ReplyInit | undefined {
    const { status, headers } = this;
    return this.#buffer.joinable ? { status, headers, body: followingBody(this.#buffer) } : undefined;
  }
  whole(): Buffer | undefined {
    return this.#buffer.whole();
  }
}

import {
  type EventTransform,
  headerValue,
  type RawHeaders,
  type Reply,
  type ReplyInit,
  type ReplyObserver,
  type SharedReply,
  TokenmanError,
  withoutHeaders,
} from "@tokenman/plugin-sdk";
import type { AttemptState } from "../attempt.ts";
import type { Cancellation } from "../cancellation.ts";
import type { PluginHandle } from "../hooks/plugin-handle.ts";
import { currentCall } from "../hooks/tap-call.ts";
import { contentCoding, isKnownCoding } from "./codec.ts";
import type { Flow } from "./flow.ts";
import { type BodyMark, ReplyBody } from "./reply-body.ts";
import {
  bodySource,
  headOf,
  type Refusal,
  type RefusalError,
  type ReplyHead,
  refusalIn,
} from "./reply-init.ts";
import { ShareBuffer } from "./share.ts";
import { Shared } from "./shared.ts";
import type { BodySource, PushSource } from "./source.ts";

/** What a reply needs of its exchange. */
export interface ReplyOwner {
  readonly maxResponseBytes: number;
  refuse(error: RefusalError): ReplyInit;
}
/** What `rollback` restores when a plugin failed in its response hook. */
export interface ReplyMark {
  readonly status: number;
  readonly headers: RawHeaders;
  readonly body: BodyMark;
}

const FRAMING: ReadonlySet<string> = new Set([
  "content-length",
  "content-encoding",
  "transfer-encoding",
  "content-md5",
  "digest",
  "repr-digest",
  "content-digest",
]);
/** A reply on its way to the client: a head, and a body with what plugins attached to it. */
export class KernelReply implements Reply {
  status: number;
  /** As it was received; undefined where there is none, which is not the same as an empty one. */
  readonly statusText: string | undefined;
  headers: RawHeaders;
  readonly origin: "provider" | "plugin" | "kernel";
  readonly plugin: string | undefined;
  readonly attempt: AttemptState | undefined;
  readonly refusal: Refusal | undefined;
  readonly #receivedStatus: number;
  readonly #body: ReplyBody;
  #current: PluginHandle | undefined;
  /** Its head is on the way, or nobody wants it: nothing can be attached any more. */
  #sealed = false;
  /** The headers that `#streaming` was read from. */
  #typedBy: RawHeaders | undefined;
  #streaming = false;

  constructor(
    head: ReplyHead,
    source: BodySource,
    from: {
      origin: "provider" | "plugin" | "kernel";
      plugin?: string | undefined;
      attempt?: AttemptState | undefined;
      refusal?: Refusal | undefined;
      maxBytes: number;
      /** Tells that nobody waits for the reply any more. */
      unwanted?: Cancellation | undefined;
    },
  ) {
    this.status = head.status;
    this.#receivedStatus = head.status;
    this.statusText = head.statusText;
    this.headers = head.headers;
    this.origin = from.origin;
    this.plugin = from.plugin;
    this.attempt = from.attempt;
    this.refusal = from.refusal;
    this.#body = new ReplyBody(this, source, from.maxBytes, from.unwanted);
  }

  /** The reply that a plugin gave. */
  static from(init: ReplyInit | KernelReply, owner: ReplyOwner, plugin: PluginHandle): KernelReply {
    if (init instanceof KernelReply) return init;
    const refusal = refusalIn(init);
    return new KernelReply(headOf(init), bodySource(init, plugin.name), {
      origin: "plugin",
      plugin: plugin.name,
      refusal,
      maxBytes: owner.maxResponseBytes,
    });
  }
  /** The reply of an in-process provider. */
  static answered(
    init: ReplyInit,
    attempt: AttemptState,
    maxBytes: number,
    unwanted?: Cancellation,
  ): KernelReply {
    const source = bodySource(init, attempt.provider.name);
    return new KernelReply(headOf(init), source, { origin: "provider", attempt, maxBytes, unwanted });
  }
  /** An error of TokenMan's own, in the client's dialect. */
  static refusal(owner: ReplyOwner, error: RefusalError): KernelReply {
    const init = owner.refuse(error);
    return new KernelReply(headOf(init), bodySource(init, "kernel"), {
      origin: "kernel",
      refusal: refusalIn(init),
      maxBytes: owner.maxResponseBytes,
    });
  }

  get streaming(): boolean {
    if (this.#typedBy !== this.headers) {
      this.#typedBy = this.headers;
      const type = headerValue(this.headers, "content-type") ?? "";
      this.#streaming = type.trimStart().toLowerCase().startsWith("text/event-stream");
    }
    return this.#streaming;
  }
  /** The body's content coding; undefined for none. */
  get coding(): string | undefined {
    return contentCoding(headerValue(this.headers, "content-encoding"));
  }

  mapEvents(transform: EventTransform): void {
    this.#assertOpen();
    if (!this.streaming) return;
    const { coding } = this;
    if (coding !== undefined && !isKnownCoding(coding)) {
      throw new TokenmanError(
        "TM_PLUGIN_FAILED",
        `the stream's content coding "${coding}" cannot be decoded, so its events cannot be changed`,
      );
    }
    this.#body.attach({ kind: "map", plugin: this.#current, transform, bypassed: false });
  }
  observe(observer: ReplyObserver): void {
    this.#assertOpen();
    this.#body.attach({ kind: "observe", plugin: this.#current, observer, bypassed: false });
  }
  async read(): Promise<Buffer> {
    this.#assertOpen();
    if (this.streaming) throw new TokenmanError("TM_REPLY_STREAMING");
    return this.#body.read();
  }
  replaceBody(body: Buffer | string): void {
    this.#assertOpen();
    const bytes = typeof body === "string" ? Buffer.from(body) : body;
    this.#body.replace(bytes);
    this.headers = [...withoutHeaders(this.headers, FRAMING), "content-length", String(bytes.length)];
  }
  share(options: { readonly maxBytes: number }): SharedReply {
    this.#assertOpen();
    const buffer = new ShareBuffer(options.maxBytes);
    // Only rewrites attached before it change what is shared.
    const shared = new Shared(this.status, this.finalHeaders(), buffer);
    this.#body.attach({ kind: "share", share: buffer });
    return shared;
  }

  /** Holds the body back, to be looked at before it is passed on. */
  hold(): PushSource {
    return this.#body.hold();
  }

  /** A plugin's response tap begins: what is attached is its own. */
  enter(plugin: PluginHandle): ReplyMark {
    this.#current = plugin;
    const { status, headers } = this;
    return { status, headers, body: this.#body.mark() };
  }
  leave(): void {
    this.#current = undefined;
  }
  /** Takes back what a failed tap attached and set. A body that it read stays readable. */
  rollback(mark: ReplyMark): void {
    this.status = mark.status;
    this.headers = mark.headers;
    this.#body.rollback(mark.body);
  }

  /** The body, ready to start. Call once. */
  body(): Flow {
    this.#sealed = true;
    return this.#body.flow();
  }
  /** The reason phrase that came with the status, unless a plugin has set another status. */
  get reasonPhrase(): string | undefined {
    return this.status === this.#receivedStatus ? this.statusText : undefined;
  }
  /** The head as it is to be sent: framing that no longer holds is gone. */
  finalHeaders(): RawHeaders {
    return this.#body.rewritten ? withoutHeaders(this.headers, FRAMING) : this.headers;
  }
  /** The reply will not be sent: whoever produces it may stop. */
  discard(): void {
    if (this.#sealed) return;
    this.#sealed = true;
    this.#body.discard();
    this.attempt?.bodyEnded("aborted");
  }

  /** A hook that was given up may go on; what it still does must not reach the client's bytes. */
  #assertOpen(): void {
    const call = currentCall();
    if (!this.#sealed && call?.over !== true) return;
    const who = call === undefined ? "a plugin" : `${call.plugin.name}'s ${call.hook} hook`;
    throw new TokenmanError(
      "TM_PLUGIN_TIMEOUT",
      `${who} came too late: a reply is changed while the response hook runs`,
    );
  }
}

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
import { contentCoding, decodeBody, isKnownCoding } from "./codec.ts";
import { Flow, type FlowOptions } from "./flow.ts";
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
import { type BodySource, BufferSource, PushSource } from "./source.ts";
import type { Step } from "./steps.ts";

/** What a reply needs of its exchange. */
export interface ReplyOwner {
  readonly maxResponseBytes: number;
  refuse(error: RefusalError): ReplyInit;
}
/** What `rollback` restores when a plugin failed in its response hook. */
export interface ReplyMark {
  readonly status: number;
  readonly headers: RawHeaders;
  readonly source: BodySource;
  readonly stepCount: number;
  readonly replacedCount: number;
}

/** A body that a plugin replaced, with what was attached to it. */
interface ReplacedBody {
  readonly source: BodySource;
  readonly steps: Step[];
  readonly options: FlowOptions;
  readonly whole: Promise<Buffer> | undefined;
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
/** Of a flow without steps, which asks for none of it. */
const PLAIN: FlowOptions = { coding: undefined, streaming: false, maxCopyBytes: 0 };

/** A reply on its way to the client: a head, a source of bytes, and the steps that plugins attached. */
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
  readonly #maxBytes: number;
  readonly #unwanted: Cancellation | undefined;
  #source: BodySource;
  #steps: Step[] = [];
  #current: PluginHandle | undefined;
  /** Its head is on the way, or nobody wants it: nothing can be attached any more. */
  #sealed = false;
  /** The headers that `#streaming` was read from. */
  #typedBy: RawHeaders | undefined;
  #streaming = false;
  #whole: Promise<Buffer> | undefined;
  #decoded: Promise<Buffer> | undefined;
  /** Bodies that were replaced: they end when it is settled that they stay so. */
  #replaced: ReplacedBody[] = [];

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
    this.#maxBytes = from.maxBytes;
    this.#unwanted = from.unwanted;
    this.#source = source;
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
  get #coding(): string | undefined {
    return contentCoding(headerValue(this.headers, "content-encoding"));
  }

  mapEvents(transform: EventTransform): void {
    this.#assertOpen();
    if (!this.streaming) return;
    const coding = this.#coding;
    if (coding !== undefined && !isKnownCoding(coding)) {
      throw new TokenmanError(
        "TM_PLUGIN_FAILED",
        `the stream's content coding "${coding}" cannot be decoded, so its events cannot be changed`,
      );
    }
    this.#steps.push({ kind: "map", plugin: this.#current, transform, bypassed: false });
  }
  observe(observer: ReplyObserver): void {
    this.#assertOpen();
    this.#steps.push({ kind: "observe", plugin: this.#current, observer, bypassed: false });
  }
  async read(): Promise<Buffer> {
    this.#assertOpen();
    if (this.streaming) throw new TokenmanError("TM_REPLY_STREAMING");
    this.#decoded ??= this.#decode();
    return this.#decoded;
  }
  async #decode(): Promise<Buffer> {
    const coding = this.#coding;
    this.#whole ??= this.#collect();
    const whole = await this.#whole;
    if (coding === undefined || whole.length === 0) return whole;
    const decoded = await decodeBody(whole, coding, this.#maxBytes || Number.MAX_SAFE_INTEGER);
    if (decoded === undefined) {
      throw new TokenmanError(
        "TM_REPLY_TOO_LARGE",
        `the reply's body does not decode as "${coding}" within server.max_response_size`,
      );
    }
    return decoded;
  }
  replaceBody(body: Buffer | string): void {
    this.#assertOpen();
    const bytes = typeof body === "string" ? Buffer.from(body) : body;
    // Observers attached before still see the body that is replaced.
    this.#replaced.push({
      source: this.#source,
      steps: this.#steps,
      options: this.#options,
      whole: this.#whole,
    });
    this.#whole = Promise.resolve(bytes);
    this.#decoded = undefined;
    this.#source = new BufferSource(bytes);
    this.#steps = [];
    this.headers = [...withoutHeaders(this.headers, FRAMING), "content-length", String(bytes.length)];
  }
  share(options: { readonly maxBytes: number }): SharedReply {
    this.#assertOpen();
    const buffer = new ShareBuffer(options.maxBytes);
    // Only rewrites attached before it change what is shared.
    const shared = new Shared(this.status, this.finalHeaders(), buffer);
    this.#steps.push({ kind: "share", share: buffer });
    return shared;
  }

  /** Holds the body back, to be looked at before it is passed on. */
  hold(): PushSource {
    const source = this.#source;
    const held = new PushSource({ resume: () => source.resume(), abort: () => source.abort() });
    this.#source = held;
    source.start({
      data: (chunk) => {
        if (!held.push(chunk)) source.pause();
      },
      end: (trailers) => held.finish(trailers),
      fail: (error) => held.fail(error),
    });
    return held;
  }

  /** A plugin's response tap begins: what is attached is its own. */
  enter(plugin: PluginHandle): ReplyMark {
    this.#current = plugin;
    const { status, headers } = this;
    const counts = { stepCount: this.#steps.length, replacedCount: this.#replaced.length };
    return { status, headers, source: this.#source, ...counts };
  }
  leave(): void {
    this.#current = undefined;
  }
  /** Takes back what a failed tap attached and set. A body that it read stays readable. */
  rollback(mark: ReplyMark): void {
    this.status = mark.status;
    this.headers = mark.headers;
    const [original] = this.#replaced.splice(mark.replacedCount);
    if (original !== undefined) {
      this.#source = original.source;
      this.#steps = original.steps;
      this.#whole = original.whole;
      this.#decoded = undefined;
    }
    // Where the tap read the body, what was attached before it has gone into the reading.
    this.#steps.length = this.#source === mark.source ? mark.stepCount : 0;
  }

  /** The body, ready to start. Call once. */
  body(): Flow {
    this.#sealed = true;
    this.#endReplaced();
    return new Flow(this.#source, this.#steps, this.#steps.length === 0 ? PLAIN : this.#options);
  }
  /** The reason phrase that came with the status, unless a plugin has set another status. */
  get reasonPhrase(): string | undefined {
    return this.status === this.#receivedStatus ? this.statusText : undefined;
  }
  /** The head as it is to be sent: framing that no longer holds is gone. */
  finalHeaders(): RawHeaders {
    return this.#steps.length > 0 && this.#steps.some((step) => step.kind === "map")
      ? withoutHeaders(this.headers, FRAMING)
      : this.headers;
  }
  /** The reply will not be sent: whoever produces it may stop. */
  discard(): void {
    if (this.#sealed) return;
    this.#sealed = true;
    this.#endReplaced();
    endBody(this.#source, this.#steps, this.#options);
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
  get #options(): FlowOptions {
    return {
      coding: this.#coding,
      streaming: this.streaming,
      maxCopyBytes: this.#maxBytes || Number.MAX_SAFE_INTEGER,
    };
  }
  #endReplaced(): void {
    if (this.#replaced.length === 0) return;
    for (const { source, steps, options } of this.#replaced.splice(0)) endBody(source, steps, options);
  }
  /** Runs the body through the steps so far into memory; later steps get it from there. */
  #collect(): Promise<Buffer> {
    const flow = new Flow(this.#source, this.#steps, this.#options);
    const limit = this.#maxBytes || Number.MAX_SAFE_INTEGER;
    const held = new PushSource({ resume: () => flow.resume(), abort: () => flow.abort() }, limit + 1);
    this.#steps = [];
    this.#source = held;
    flow.start({
      data: (chunk) => {
        if (!held.push(chunk)) flow.pause();
      },
      end: (trailers) => held.finish(trailers),
      fail: (error) => held.fail(error),
    });
    return new Promise<Buffer>((resolve, reject) => {
      held.peek(({ chunks, ended, full, error }) => {
        if (error !== undefined) reject(error);
        else if (ended) resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks as Buffer[]));
        else if (full) reject(new TokenmanError("TM_REPLY_TOO_LARGE"));
        return error !== undefined || ended || full;
      });
      // While a plugin reads, nobody else would tell the upstream that the client has left.
      this.#unwanted?.onCancel(() => {
        flow.abort();
        reject(new TokenmanError("TM_CLIENT_GONE"));
      });
    });
  }
}

/** Lets those who are attached to a body know that it is not wanted; whoever shares it keeps it going. */
function endBody(source: BodySource, steps: readonly Step[], options: FlowOptions): void {
  const flow = new Flow(source, steps, options);
  flow.start({ data() {}, end() {}, fail() {} });
  flow.abort();
}

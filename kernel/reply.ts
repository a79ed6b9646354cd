import {
  type ErrorCode,
  type EventTransform,
  headerValue,
  type PublicError,
  type RawHeaders,
  type Reply,
  type ReplyInit,
  type ReplyObserver,
  type SharedReply,
  TokenmanError,
  withoutHeaders,
} from "@tokenman/plugin-sdk";
import type { AttemptState } from "./attempt.ts";
import { contentCoding, decodeBody, isKnownCoding } from "./codec.ts";
import { Flow } from "./flow.ts";
import type { PluginHandle } from "./plugin-handle.ts";
import { ShareBuffer } from "./share.ts";
import { type BodySource, BufferSource, IterableSource, PushSource } from "./source.ts";
import type { Step } from "./steps.ts";

/** Marks a reply made by `ex.refuse`: the exchange's outcome is "refused" with this code. */
const REFUSAL: unique symbol = Symbol("refusal");
/** Marks the body of a joined {@link SharedReply}, which is followed without a generator in between. */
const SHARED: unique symbol = Symbol("shared");

export interface Refusal {
  readonly code: ErrorCode;
  readonly message: string;
}
type MarkedInit = ReplyInit & { readonly [REFUSAL]?: Refusal };
type SharedBody = AsyncIterable<Buffer> & { readonly [SHARED]?: () => BodySource };

/** What a reply needs of its exchange. */
export interface ReplyOwner {
  readonly maxResponseBytes: number;
  refuse(error: RefusalError): ReplyInit;
}
export type RefusalError = Omit<PublicError, "status"> & {
  readonly status?: number;
  readonly code: ErrorCode;
};

export interface ReplyHead {
  readonly status: number;
  readonly statusText?: string | undefined;
  readonly headers: RawHeaders;
}

/** What `rollback` restores when a plugin failed in its response hook. */
export interface ReplyMark {
  readonly status: number;
  readonly headers: RawHeaders;
  readonly steps: number;
  readonly source: BodySource;
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
const LENGTH: ReadonlySet<string> = new Set(["content-length", "connection", "transfer-encoding"]);

/** A reply on its way to the client: a head, a source of bytes, and the steps that plugins attached. */
export class KernelReply implements Reply {
  status: number;
  statusText: string | undefined;
  headers: RawHeaders;
  readonly origin: "provider" | "plugin" | "kernel";
  readonly plugin: string | undefined;
  readonly attempt: AttemptState | undefined;
  readonly refusal: Refusal | undefined;
  readonly #maxBytes: number;
  #source: BodySource;
  #steps: Step[] = [];
  #flow: Flow | undefined;
  #current: PluginHandle | undefined;
  #whole: Buffer | undefined;

  constructor(
    head: ReplyHead,
    source: BodySource,
    from: {
      origin: "provider" | "plugin" | "kernel";
      plugin?: string | undefined;
      attempt?: AttemptState | undefined;
      refusal?: Refusal | undefined;
      maxBytes: number;
    },
  ) {
    this.status = head.status;
    this.statusText = head.statusText;
    this.headers = head.headers;
    this.origin = from.origin;
    this.plugin = from.plugin;
    this.attempt = from.attempt;
    this.refusal = from.refusal;
    this.#maxBytes = from.maxBytes;
    this.#source = source;
  }

  /** The reply that a plugin gave. */
  static from(init: ReplyInit | KernelReply, owner: ReplyOwner, plugin: PluginHandle): KernelReply {
    if (init instanceof KernelReply) return init;
    const refusal = (init as MarkedInit)[REFUSAL];
    return new KernelReply(headOf(init), bodySource(init, plugin.name), {
      origin: "plugin",
      plugin: plugin.name,
      refusal,
      maxBytes: owner.maxResponseBytes,
    });
  }
  /** The reply of an in-process provider. */
  static answered(init: ReplyInit, attempt: AttemptState, maxBytes: number): KernelReply {
    const source = bodySource(init, attempt.provider.name);
    return new KernelReply(headOf(init), source, { origin: "provider", attempt, maxBytes });
  }
  /** An error of TokenMan's own, in the client's dialect. */
  static refusal(owner: ReplyOwner, error: RefusalError): KernelReply {
    const init = owner.refuse(error) as MarkedInit;
    return new KernelReply(headOf(init), bodySource(init, "kernel"), {
      origin: "kernel",
      refusal: init[REFUSAL],
      maxBytes: owner.maxResponseBytes,
    });
  }

  get streaming(): boolean {
    return (headerValue(this.headers, "content-type") ?? "")
      .trimStart()
      .toLowerCase()
      .startsWith("text/event-stream");
  }
  get #coding(): string | undefined {
    return contentCoding(headerValue(this.headers, "content-encoding"));
  }

  mapEvents(transform: EventTransform): void {
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
    this.#steps.push({ kind: "observe", plugin: this.#current, observer, bypassed: false });
  }
  async read(): Promise<Buffer> {
    if (this.streaming) throw new TokenmanError("TM_REPLY_STREAMING");
    const coding = this.#coding;
    this.#whole ??= await this.#collect();
    if (coding === undefined) return this.#whole;
    const decoded = await decodeBody(this.#whole, coding, this.#maxBytes || Number.MAX_SAFE_INTEGER);
    if (decoded === undefined) {
      throw new TokenmanError(
        "TM_REPLY_TOO_LARGE",
        `the reply's body does not decode as "${coding}" within server.max_response_size`,
      );
    }
    return decoded;
  }
  replaceBody(body: Buffer | string): void {
    const bytes = typeof body === "string" ? Buffer.from(body) : body;
    // Observers attached before still see the body that is replaced.
    if (this.#whole === undefined) this.#endFlow();
    this.#whole = bytes;
    this.#source = new BufferSource(bytes);
    this.headers = [...withoutHeaders(this.headers, FRAMING), "content-length", String(bytes.length)];
  }
  share(options: { readonly maxBytes: number }): SharedReply {
    const buffer = new ShareBuffer(options.maxBytes);
    this.#steps.push({ kind: "share", share: buffer });
    const head = { status: this.status, headers: this.headers };
    return {
      join: () => {
        if (!buffer.joinable) return undefined;
        const headers = this.#steps.some((step) => step.kind === "map")
          ? withoutHeaders(head.headers, FRAMING)
          : head.headers;
        const body: SharedBody = {
          [SHARED]: () => buffer.join(),
          [Symbol.asyncIterator]: () => iterate(buffer.join()),
        };
        return { status: head.status, headers, body };
      },
    };
  }

  /** A plugin's response tap begins: what is attached is its own. */
  enter(plugin: PluginHandle): ReplyMark {
    this.#current = plugin;
    return { status: this.status, headers: this.headers, steps: this.#steps.length, source: this.#source };
  }
  leave(): void {
    this.#current = undefined;
  }
  /** Takes back what a failed tap attached and set. A body that it read or replaced stays readable. */
  rollback(mark: ReplyMark): void {
    this.status = mark.status;
    this.headers = mark.headers;
    if (this.#source === mark.source) this.#steps.length = mark.steps;
    else if (this.#whole !== undefined) this.#source = new BufferSource(this.#original ?? this.#whole);
  }
  #original: Buffer | undefined;

  /** The body, ready to start. Call once. */
  body(): Flow {
    this.#flow = this.#makeFlow();
    return this.#flow;
  }
  /** The head as it is to be sent: framing that no longer holds is gone. */
  finalHeaders(): RawHeaders {
    return this.#steps.some((step) => step.kind === "map")
      ? withoutHeaders(this.headers, FRAMING)
      : this.headers;
  }
  /** The reply will not be sent: whoever produces it may stop. */
  discard(): void {
    this.#endFlow();
    this.attempt?.bodyEnded("aborted");
  }

  #makeFlow(): Flow {
    return new Flow(this.#source, this.#steps, {
      coding: this.#coding,
      streaming: this.streaming,
      maxCopyBytes: this.#maxBytes || Number.MAX_SAFE_INTEGER,
    });
  }
  /** Lets the observers so far know that their body is not wanted. */
  #endFlow(): void {
    const flow = this.#makeFlow();
    this.#steps = [];
    flow.start({ data() {}, end() {}, fail() {} });
    flow.abort();
  }
  /** Runs the body through the steps so far into memory; later steps get it from there. */
  async #collect(): Promise<Buffer> {
    const flow = this.#makeFlow();
    const limit = this.#maxBytes || Number.MAX_SAFE_INTEGER;
    const held = new PushSource({ resume: () => flow.resume(), abort: () => flow.abort() }, limit);
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
        else if (ended) {
          const body = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks as Buffer[]);
          this.#original = body;
          resolve(body);
        } else if (full) reject(new TokenmanError("TM_REPLY_TOO_LARGE"));
        return error !== undefined || ended || full;
      });
    });
  }
}

/** Whether a plugin's value is usable as a reply. */
export function isReplyInit(value: unknown): value is ReplyInit {
  if (typeof value !== "object" || value === null) return false;
  const { status, headers, body } = value as Record<string, unknown>;
  if (!Number.isInteger(status) || (status as number) < 200 || (status as number) > 599) return false;
  if (headers !== undefined) {
    if (!Array.isArray(headers) || headers.length % 2 !== 0) return false;
    if (headers.some((part) => typeof part !== "string")) return false;
  }
  if (body === undefined || typeof body === "string" || Buffer.isBuffer(body)) return true;
  return typeof (body as AsyncIterable<Buffer>)[Symbol.asyncIterator] === "function";
}

/** Marks a refusal, for the outcome. */
export function markRefusal(init: ReplyInit, refusal: Refusal): ReplyInit {
  return { ...init, [REFUSAL]: refusal } as MarkedInit;
}

function headOf(init: ReplyInit): ReplyHead {
  const headers = withoutHeaders(init.headers ?? [], LENGTH);
  if (init.body === undefined || typeof init.body === "string" || Buffer.isBuffer(init.body)) {
    const length = init.body === undefined ? 0 : Buffer.byteLength(init.body);
    return { status: init.status, headers: [...headers, "content-length", String(length)] };
  }
  return { status: init.status, headers };
}

function bodySource(init: ReplyInit, owner: string): BodySource {
  const { body } = init;
  if (body === undefined) return new BufferSource(Buffer.alloc(0));
  if (typeof body === "string") return new BufferSource(Buffer.from(body));
  if (Buffer.isBuffer(body)) return new BufferSource(body);
  const shared = (body as SharedBody)[SHARED];
  if (shared !== undefined) return shared();
  return new IterableSource(body, (cause) =>
    cause instanceof TokenmanError
      ? cause
      : new TokenmanError("TM_UPSTREAM_CUT", `${owner} broke off its answer`, { cause }),
  );
}

async function* iterate(source: BodySource): AsyncGenerator<Buffer> {
  const chunks: Buffer[] = [];
  let wake: (() => void) | undefined;
  let ended = false;
  let failure: Error | undefined;
  source.start({
    data: (chunk) => {
      chunks.push(chunk);
      wake?.();
    },
    end: () => {
      ended = true;
      wake?.();
    },
    fail: (error) => {
      failure = error;
      wake?.();
    },
  });
  try {
    for (;;) {
      for (let chunk = chunks.shift(); chunk !== undefined; chunk = chunks.shift()) yield chunk;
      if (failure !== undefined) throw failure;
      if (ended) return;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  } finally {
    source.abort();
  }
}

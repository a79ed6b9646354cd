import { type BodyEnd, headerValue, type InnerReply, TokenmanError } from "@tokenman/plugin-sdk";
import type { ExchangeEnd, Sent } from "./end.ts";
import type { ExchangeState } from "./exchange.ts";
import { refusalOf } from "./refusal.ts";
import { contentCoding, isKnownCoding } from "./reply/codec.ts";
import type { Flow } from "./reply/flow.ts";
import type { KernelReply } from "./reply/reply.ts";
import type { BodySink } from "./reply/source.ts";
import { tooLarge } from "./request.ts";
import type { Limits } from "./serving.ts";
import { relayedHeaders } from "./upstream/outgoing.ts";

/** How far a plugin may lag behind the reply that it reads before the provider is slowed. */
const LAG_BYTES = 256 * 1024;

/** The end of an exchange at which there is no client but a plugin, which reads the reply at its own pace. */
export class Asker implements ExchangeEnd, BodySink, AsyncIterableIterator<Buffer> {
  readonly #exchange: ExchangeState;
  readonly #body: Buffer;
  readonly #reply = Promise.withResolvers<InnerReply>();
  #flow: Flow | undefined;
  #chunks: Buffer[] = [];
  #heldBytes = 0;
  #bytes = 0;
  #firstByteMs: number | undefined;
  #ended = false;
  #left = false;
  #error: TokenmanError | undefined;
  #wake: (() => void) | undefined;

  constructor(exchange: ExchangeState, body: Buffer) {
    this.#exchange = exchange;
    this.#body = body;
    // Whoever gives up may not look at it any more.
    this.#reply.promise.catch(() => {});
  }

  /** The reply's head, with this as its body. Rejects where there is none, or the plugin gave up before. */
  get reply(): Promise<InnerReply> {
    return this.#reply.promise;
  }
  body(_wanted: boolean, { body: { maxBytes } }: Limits): Buffer {
    if (maxBytes > 0 && this.#body.length > maxBytes) throw tooLarge(maxBytes);
    return this.#body;
  }
  upload(): undefined {}
  inform(): void {}
  /** Resolves when all of the body is here, or nobody wants it, and its source has ended. */
  async send(exchange: ExchangeState, received: KernelReply): Promise<Sent> {
    const reply = await plainReply(exchange, received);
    const { status } = reply;
    const sent = this.#take(reply);
    this.#reply.resolve({ status, headers: relayedHeaders(reply.finalHeaders()), body: this });
    return sent;
  }
  #take(reply: KernelReply): Promise<Sent> {
    const headSent = !this.#left;
    return new Promise((resolve) => {
      const flow = reply.body();
      this.#flow = flow;
      flow.whenDone((body: BodyEnd) => {
        reply.attempt?.bodyEnded(body);
        resolve({
          headSent,
          end: this.#error !== undefined ? "cut" : this.#ended ? "whole" : "aborted",
          error: this.#error,
          bytes: this.#bytes,
          firstByteMs: this.#firstByteMs,
          body,
        });
      });
      flow.start(this);
      if (this.#left) flow.leave(this.#exchange.cancellation);
    });
  }

  data(chunk: Buffer): void {
    if (this.#left) return;
    this.#firstByteMs ??= this.#exchange.elapsedMs();
    this.#bytes += chunk.length;
    this.#chunks.push(chunk);
    this.#heldBytes += chunk.length;
    if (this.#heldBytes >= LAG_BYTES) this.#flow?.pause();
    this.#wake?.();
  }
  end(): void {
    if (this.#left) return;
    this.#ended = true;
    this.#wake?.();
  }
  fail(error: TokenmanError): void {
    if (!this.#left) this.#error ??= error;
    this.#wake?.();
  }
  buffered(): number {
    return this.#heldBytes;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
  async next(): Promise<IteratorResult<Buffer, undefined>> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        this.#heldBytes -= chunk.length;
        if (this.#heldBytes < LAG_BYTES) this.#flow?.resume();
        return { done: false, value: chunk };
      }
      if (this.#error !== undefined) throw this.#error;
      if (this.#ended) return { done: true, value: undefined };
      if (this.#left) throw calledOff();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#wake = undefined;
    }
  }
  async return(): Promise<IteratorResult<Buffer, undefined>> {
    this.leave();
    return { done: true, value: undefined };
  }

  /** The plugin gives up, or `error` ends the exchange under its hands. */
  leave(error?: TokenmanError): void {
    if (this.#left || this.#ended) return;
    this.#left = true;
    this.#error ??= error;
    this.#chunks = [];
    this.#heldBytes = 0;
    this.#exchange.clientLeft();
    this.#reply.reject(error ?? calledOff());
    this.#flow?.leave(this.#exchange.cancellation);
    this.#wake?.();
  }
  breakOff(error: TokenmanError): void {
    this.#reply.reject(error);
    this.leave(error);
  }
}

/** A reply whose body comes without a Content-Encoding, where that is known. */
async function plainReply(exchange: ExchangeState, reply: KernelReply): Promise<KernelReply> {
  const coding = contentCoding(headerValue(reply.headers, "content-encoding"));
  if (coding === undefined || !isKnownCoding(coding)) return reply;
  if (reply.streaming) {
    reply.mapEvents({ event: (event) => event });
    return reply;
  }
  try {
    reply.replaceBody(await reply.read());
    return reply;
  } catch (cause) {
    reply.discard();
    return refusalOf(exchange, cause);
  }
}

function calledOff(): TokenmanError {
  return new TokenmanError("TM_CLIENT_GONE", "the exchange was called off");
}

import { type BodyEnd, TokenmanError } from "@tokenman/plugin-sdk";
import type { ExchangeState } from "./exchange.ts";
import type { Flow } from "./reply/flow.ts";
import type { KernelReply } from "./reply/reply.ts";
import type { BodySink } from "./reply/source.ts";
import type { Sent } from "./respond.ts";

/** How far a plugin may lag behind the reply that it reads before the provider is slowed. */
const LAG_BYTES = 256 * 1024;

/** The end of an exchange at which there is no client but a plugin, which reads the reply at its own pace. */
export class Asker implements BodySink, AsyncIterableIterator<Buffer> {
  readonly #exchange: ExchangeState;
  #flow: Flow | undefined;
  #chunks: Buffer[] = [];
  #heldBytes = 0;
  #bytes = 0;
  #firstByteMs: number | undefined;
  #ended = false;
  #left = false;
  #error: TokenmanError | undefined;
  #wake: (() => void) | undefined;
  #onLeave: ((error: TokenmanError) => void) | undefined;

  constructor(exchange: ExchangeState) {
    this.#exchange = exchange;
  }

  /** Whether the plugin gave up. */
  get left(): boolean {
    return this.#left;
  }
  /** Calls back when the plugin gives up. */
  onLeave(callback: (error: TokenmanError) => void): void {
    this.#onLeave = callback;
  }
  /** Takes a reply's body in. Resolves when all of it is here, or nobody wants it, and its source has ended. */
  take(reply: KernelReply): Promise<Sent> {
    return new Promise((resolve) => {
      const flow = reply.body();
      this.#flow = flow;
      flow.whenDone((body: BodyEnd) => {
        reply.attempt?.bodyEnded(body);
        resolve({
          end: this.#error !== undefined ? "cut" : this.#ended ? "whole" : "aborted",
          error: this.#error,
          bytes: this.#bytes,
          firstByteMs: this.#firstByteMs,
          body,
        });
      });
      flow.start(this);
      if (this.#left) this.#release(flow);
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
    this.#onLeave?.(error ?? calledOff());
    if (this.#flow !== undefined) this.#release(this.#flow);
    this.#wake?.();
  }
  /** The body goes on as long as somebody retains the exchange, or shares the reply. */
  #release(flow: Flow): void {
    const { cancellation } = this.#exchange;
    if (!cancellation.cancelled) flow.resume();
    cancellation.onCancel(() => flow.abort());
  }
}

function calledOff(): TokenmanError {
  return new TokenmanError("TM_CLIENT_GONE", "the exchange was called off");
}

import type { Readable } from "node:stream";
import type { BodyEnd, TokenmanError } from "@tokenman/plugin-sdk";
import type { ExchangeState } from "./exchange.ts";
import type { KernelReply } from "./reply/reply.ts";
import type { Limits } from "./serving.ts";

/** Where the request of an exchange comes from and its reply goes: a client, or a plugin. */
export interface ExchangeEnd {
  /**
   * The request's body: at hand, or on its way. Undefined where it is not `wanted` in memory: then {@link upload} has
   * it. Throws or rejects with TM_BODY_TOO_LARGE, TM_BODY_TIMEOUT and TM_CLIENT_GONE.
   */
  body(wanted: boolean, limits: Limits): Promise<Buffer> | Buffer | undefined;
  /** The body as a stream, once; undefined where it was read, or taken. */
  upload(): Readable | undefined;
  /** Passes a 1xx reply on, where that is possible. */
  inform(status: number, headers: readonly string[]): void;
  /** Sends the reply. `isLast`: no further request is taken on its connection. */
  send(exchange: ExchangeState, reply: KernelReply, limits: Limits, isLast: boolean): Promise<Sent>;
  /** There will be no reply, or no more of it. */
  breakOff(error: TokenmanError): void;
}

/** How the sending of a reply ended. */
export interface Sent {
  readonly end: "whole" | "aborted" | "cut";
  /** The reply's head was on its way before the other side left. */
  readonly headSent: boolean;
  /** What broke the reply, where something of TokenMan's or the upstream's did. */
  readonly error: TokenmanError | undefined;
  readonly bytes: number;
  /** Milliseconds from the exchange's start to the first body byte. */
  readonly firstByteMs: number | undefined;
  readonly body: BodyEnd;
}

import type { Outcome } from "@tokenman/plugin-sdk";
import type { Sent } from "./end.ts";
import type { ExchangeState } from "./exchange.ts";
import type { KernelReply } from "./reply/reply.ts";

/** How an exchange ended whose reply was sent as `sent` says. */
export function outcomeOf(exchange: ExchangeState, reply: KernelReply, sent: Sent): Outcome {
  const base = {
    status: reply.status,
    origin: reply.origin,
    bytesSent: sent.bytes,
    durationMs: exchange.elapsedMs(),
    firstByteMs: sent.firstByteMs,
  };
  if (exchange.cutBy !== undefined && sent.end !== "whole")
    return { ...base, kind: "failed", code: exchange.cutBy, message: undefined };
  if (sent.end === "aborted") {
    return {
      ...base,
      kind: "aborted",
      status: sent.headSent ? reply.status : 499,
      code: "TM_CLIENT_GONE",
      message: undefined,
    };
  }
  if (sent.end === "cut") {
    const stalled = sent.error?.code === "TM_CLIENT_STALLED";
    return {
      ...base,
      kind: stalled ? "aborted" : "partial",
      code: sent.error?.code,
      message: sent.error?.message,
    };
  }
  if (reply.refusal !== undefined)
    return { ...base, kind: "refused", code: reply.refusal.code, message: reply.refusal.message };
  // The provider closed a stream without its regular end: relayed as it came, but not whole.
  if (reply.attempt?.terminal === false && reply.status < 400) {
    return {
      ...base,
      kind: "partial",
      code: "TM_UPSTREAM_CUT",
      message: "the stream ended without its terminal event",
    };
  }
  return { ...base, kind: "answered", code: undefined, message: undefined };
}

/** How an exchange ended that failed inside the kernel. */
export function failureOf(exchange: ExchangeState, cause: unknown): Outcome {
  const message = cause instanceof Error ? cause.message : String(cause);
  return {
    kind: "failed",
    status: 500,
    origin: undefined,
    code: "TM_INTERNAL",
    message,
    bytesSent: 0,
    durationMs: exchange.elapsedMs(),
    firstByteMs: undefined,
  };
}

import { TokenmanError } from "@tokenman/plugin-sdk";
import type { ExchangeState } from "./exchange.ts";
import { KernelReply } from "./reply/reply.ts";

/** TokenMan's own reply to an exchange that failed: what happened where the client can do something about it. */
export function refusalOf(exchange: ExchangeState, cause: unknown): KernelReply {
  const isKnown = cause instanceof TokenmanError;
  return KernelReply.refusal(exchange, {
    code: isKnown ? cause.code : "TM_INTERNAL",
    message: isKnown && cause.status < 500 ? cause.message : "This request failed inside TokenMan.",
  });
}

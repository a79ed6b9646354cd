import { ERRORS, type ErrorCode, TokenmanError } from "@tokenman/plugin-sdk";
import type { WireError } from "./messages.ts";
import { messageOf } from "./sqlite-error.ts";

/** What a thread tells another of an error: those without a code of their own mean that the store is unavailable. */
export function wireError(cause: unknown): WireError {
  if (cause instanceof TokenmanError) return { code: cause.code, message: cause.message };
  return { code: "TM_LEDGER_UNAVAILABLE", message: messageOf(cause) };
}

export function asError({ code, message }: WireError): TokenmanError {
  return new TokenmanError(Object.hasOwn(ERRORS, code) ? (code as ErrorCode) : "TM_INTERNAL", message);
}

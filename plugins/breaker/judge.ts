import type { Attempt, ErrorCode } from "@tokenman/plugin-sdk";
import type { Verdict } from "./circuit.ts";

/** Failures before a reply that are the provider's; the others are TokenMan's or the client's. */
const PROVIDERS: ReadonlySet<ErrorCode> = new Set([
  "TM_UPSTREAM_CONNECT",
  "TM_UPSTREAM_TLS",
  "TM_UPSTREAM_RESET",
  "TM_UPSTREAM_PROTOCOL",
  "TM_UPSTREAM_TIMEOUT",
  "TM_UPSTREAM_CUT",
]);

/** What an attempt's end says about its provider. Anything that it answers properly, a refusal too, is a success. */
export function judge(
  { result, streamError }: Pick<Attempt, "result" | "streamError">,
  countRateLimits: boolean,
): Verdict {
  if (result?.kind === "error") return PROVIDERS.has(result.code) ? "failure" : "neither";
  if (result?.kind !== "reply") return "neither";
  const status = streamError === undefined ? result.status : (streamError.status ?? 500);
  if (status === 429) return countRateLimits ? "failure" : "neither";
  if (status >= 500 || result.body === "upstream-cut") return "failure";
  return result.body === "complete" ? "success" : "neither";
}

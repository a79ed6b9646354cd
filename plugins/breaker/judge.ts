import type { Attempt, ErrorCode } from "@tokenman/plugin-sdk";

/** Failures before a reply that are the provider's; the others are TokenMan's or the client's. */
const PROVIDERS: ReadonlySet<ErrorCode> = new Set([
  "TM_UPSTREAM_CONNECT",
  "TM_UPSTREAM_CONNECT_TIMEOUT",
  "TM_UPSTREAM_PROXY",
  "TM_UPSTREAM_TLS",
  "TM_UPSTREAM_RESET",
  "TM_UPSTREAM_PROTOCOL",
  "TM_UPSTREAM_TIMEOUT",
  "TM_UPSTREAM_DEADLINE",
  "TM_UPSTREAM_IDLE",
  "TM_UPSTREAM_CUT",
]);

/**
 * What an attempt says about its provider and about the model that it asked for: "answered" properly, a refusal too;
 * "failed" by the provider's own word, with a status or an event of an error; "broken" off, or never answered; "neither"
 * for what a limit, the client or TokenMan ended, and for what has not come to its end without having failed.
 */
export type Judgement = "answered" | "failed" | "broken" | "neither";

export function judge(
  { result, status, streamError }: Pick<Attempt, "result" | "status" | "streamError">,
  countRateLimits: boolean,
): Judgement {
  if (result?.kind === "error") return PROVIDERS.has(result.code) ? "broken" : "neither";
  // A stream that ended before its first event said nothing: how it ended tells whose doing that was.
  const isSaid = streamError !== undefined && streamError.type !== "cut";
  const said = isSaid ? (streamError.status ?? 500) : (status ?? 0);
  if (said === 429) return countRateLimits ? "failed" : "neither";
  if (said >= 500) return "failed";
  if (result?.kind !== "reply") return "neither";
  if (result.body === "upstream-cut") return "broken";
  return result.body === "complete" ? "answered" : "neither";
}

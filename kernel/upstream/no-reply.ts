import type { AttemptResult, TokenmanError } from "@tokenman/plugin-sdk";
import type { ExchangeState } from "../exchange.ts";
import type { RefusalError } from "../reply/reply-init.ts";

/**
 * Why no candidate answered, in words a client may read. `error` is what the last attempt that was sent ended with. Where
 * all were skipped it says who skipped which and why, and when the first of them may be tried, where one can tell.
 */
export function noReply(exchange: ExchangeState, error: TokenmanError | undefined): RefusalError {
  const { attempts, ruledOut } = exchange;
  if (error !== undefined) {
    const last = attempts.findLast((attempt) => attempt.result?.kind === "error");
    return {
      code: error.code,
      message: `${SAYS[error.code] ?? "The provider did not answer"} (provider ${last?.provider.name ?? "unknown"}).`,
    };
  }
  const skipped = attempts.flatMap(({ provider, result }) =>
    result?.kind === "skipped" ? [{ provider: provider.name, result }] : [],
  );
  const reasons = [
    ...skipped.map(({ provider, result }) => `${provider}: ${result.reason} (${result.by})`),
    ...ruledOut.map(({ provider, reason }) => `${provider}: ${reason}`),
  ].join("; ");
  if (skipped.length === 0) {
    const message = `No configured provider can serve this request.${reasons === "" ? "" : ` ${reasons}`}`;
    return { code: "TM_NO_PROVIDER", message };
  }
  return {
    code: "TM_ALL_SKIPPED",
    message: `Every provider that could serve this request was skipped. ${reasons}`,
    headers: retryAfter(skipped.map(({ result }) => result)),
    details: {
      skipped: skipped.map(({ provider, result: { by, reason, retryAfterMs } }) => ({
        provider,
        by,
        reason,
        ...(retryAfterMs !== undefined && { retry_after_ms: Math.ceil(retryAfterMs) }),
      })),
    },
  };
}

type Skipped = Extract<AttemptResult, { readonly kind: "skipped" }>;

/** The soonest of the times that are known, in whole seconds and at least one (RFC 9110, 10.2.3). */
function retryAfter(skipped: readonly Skipped[]): readonly string[] {
  const soonestMs = Math.min(...skipped.map(({ retryAfterMs = Number.POSITIVE_INFINITY }) => retryAfterMs));
  if (!Number.isFinite(soonestMs)) return [];
  return ["Retry-After", String(Math.max(1, Math.ceil(soonestMs / 1_000)))];
}

const SAYS: Readonly<Partial<Record<TokenmanError["code"], string>>> = {
  TM_UPSTREAM_CONNECT: "The provider could not be reached",
  TM_UPSTREAM_CONNECT_TIMEOUT: "The provider could not be reached in time",
  TM_UPSTREAM_BUSY: "All connections to the provider were in use",
  TM_UPSTREAM_PROXY: "The proxy on the way to the provider refused",
  TM_UPSTREAM_DEADLINE: "The provider did not finish in time",
  TM_UPSTREAM_IDLE: "The provider stopped taking the request",
  TM_UPSTREAM_TLS: "The provider's TLS certificate was refused",
  TM_UPSTREAM_RESET: "The provider closed the connection before answering",
  TM_UPSTREAM_CUT: "The provider broke off its answer",
  TM_UPSTREAM_PROTOCOL: "The provider's answer was not understood",
  TM_UPSTREAM_TIMEOUT: "The provider did not answer in time",
  TM_BAD_REQUEST: "The request cannot be written as HTTP",
  TM_BODY_TOO_LARGE: "The request body is too large for a provider that takes it whole",
  TM_BODY_TIMEOUT: "The request body stalled before the provider had it",
  TM_KEY_UNAVAILABLE: "The provider's key could not be resolved",
  TM_EDIT_CONFLICT: "The plugins' changes to this request contradict each other",
};

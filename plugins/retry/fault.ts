import {
  type Attempt,
  type AttemptHead,
  type AttemptResult,
  type ErrorCode,
  type Exchange,
  headerValue,
  retryAfterMs,
} from "@tokenman/plugin-sdk";

/** A failure after which another attempt makes sense. */
export interface Fault {
  /** Whether the same candidate may be asked again; else only another one. */
  readonly again: boolean;
  /** What the provider said about when; see {@link retryAfterMs}. */
  readonly toldMs: number | undefined;
  /** Only the same provider with another key may do better. */
  readonly otherKey?: true;
}

const AGAIN: Fault = { again: true, toldMs: undefined };
/** Nothing that the same candidate could do better. */
export const ELSEWHERE: Fault = { again: false, toldMs: undefined };
/** What is over is this key's own quota or cap. */
const OTHER_KEY: Fault = { again: false, toldMs: undefined, otherKey: true };

/**
 * What each failure before a reply allows. With any other, the next provider would fare no better, or an answer had begun
 * that was cut or is no HTTP: what was answered in part is never sent twice.
 */
const ERRORS: Readonly<Partial<Record<ErrorCode, Fault>>> = {
  TM_UPSTREAM_CONNECT: AGAIN,
  TM_UPSTREAM_CONNECT_TIMEOUT: AGAIN,
  TM_UPSTREAM_RESET: AGAIN,
  // Its own limits, and what stands before it: asking again at once changes nothing about them.
  TM_UPSTREAM_BUSY: ELSEWHERE,
  TM_UPSTREAM_PROXY: ELSEWHERE,
  TM_UPSTREAM_DEADLINE: ELSEWHERE,
  TM_UPSTREAM_IDLE: ELSEWHERE,
  // A certificate does not get better by asking again.
  TM_UPSTREAM_TLS: ELSEWHERE,
  TM_KEY_UNAVAILABLE: ELSEWHERE,
};

const IDEMPOTENT = new Set(["GET", "HEAD", "OPTIONS"]);
/** Statuses by which a server says that it did not begin. */
const NOT_BEGUN = new Set([429, 503, 529]);

/** The fault in an attempt that ended without a reply; undefined where no other attempt may follow. */
export function faultOfError(
  exchange: Exchange,
  result: Extract<AttemptResult, { readonly kind: "error" }>,
): Fault | undefined {
  if (result.bytesSent && mayHaveEffects(exchange)) return undefined;
  if (result.code !== "TM_UPSTREAM_TIMEOUT") return ERRORS[result.code];
  // It may still be at work on what was sent, and bill it: the same one is not given it twice.
  return result.bytesSent ? ELSEWHERE : AGAIN;
}

/** The fault in a reply; undefined where it is the client's. `now`: milliseconds since the epoch. */
export function faultOfReply(
  exchange: Exchange,
  attempt: Attempt,
  head: AttemptHead,
  statuses: ReadonlySet<number>,
  now: number,
): Fault | undefined {
  const { status, headers, firstEvent } = head;
  if (status < 400) {
    // A stream that broke had begun: what was answered in part is never sent twice.
    if (firstEvent?.kind !== "error" || firstEvent.type === "cut" || !firstEvent.retryable) return undefined;
    if (!statuses.has(firstEvent.status ?? 500)) return undefined;
    return { again: true, toldMs: retryAfterMs(headers, now) };
  }
  // TokenMan's own key was refused: that is no news for the client, while somebody else may serve it.
  if ((status === 401 || status === 403) && attempt.candidate.credential.kind === "key") return ELSEWHERE;
  const isAsked = headerValue(headers, "x-should-retry")?.trim().toLowerCase() === "true";
  if (!statuses.has(status) && !isAsked) return undefined;
  if (!NOT_BEGUN.has(status) && mayHaveEffects(exchange)) return undefined;
  if (isRetryable(exchange, head)) return { again: true, toldMs: retryAfterMs(headers, now) };
  return status === 429 && attempt.candidate.account !== undefined ? OTHER_KEY : undefined;
}

/** False for spend caps and exhausted quotas: nobody's waiting cures those. */
function isRetryable(exchange: Exchange, { status, headers, errorBody }: AttemptHead): boolean {
  const { dialect } = exchange;
  if (dialect !== undefined)
    return dialect.judgeError(status, headers, errorBody ?? Buffer.alloc(0)).retryable;
  return headerValue(headers, "x-should-retry")?.trim().toLowerCase() !== "false";
}

/** An opaque request may create something, which twice sent would be there twice. */
function mayHaveEffects(exchange: Exchange): boolean {
  return exchange.dialect === undefined && !IDEMPOTENT.has(exchange.request.method);
}

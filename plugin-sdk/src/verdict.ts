import type { Attempt, Exchange, Verdict } from "./exchange.ts";
import type { ReplyInit } from "./reply.ts";

/**
 * The verdict on an attempt that must not be sent: skip it where another candidate may still be tried, or where a
 * provider's own reply may be the client's; else answer. `reason` is read by people, and may reach the client;
 * `retryAfterMs` is the time until there is room again, where that is known.
 */
export function decline(
  exchange: Exchange,
  attempt: Attempt,
  reason: string,
  refusal: () => ReplyInit,
  retryAfterMs?: number,
): Verdict {
  const tried = new Set(exchange.attempts.map(({ candidate }) => candidate));
  const isLast =
    exchange.candidates.every((candidate) => tried.has(candidate)) &&
    exchange.attempts.every((other) => other === attempt || other.result?.kind === "skipped");
  return isLast
    ? { answer: refusal() }
    : { skip: reason, ...(retryAfterMs !== undefined && { retryAfterMs }) };
}

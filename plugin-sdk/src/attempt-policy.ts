import type { EventVerdict } from "./dialect.ts";
import type { Attempt, Candidate, Exchange } from "./exchange.ts";
import { type ServiceToken, service } from "./service.ts";

/** What the kernel knows when it asks for the next step. */
export interface AttemptView {
  readonly exchange: Exchange;
  /** All attempts so far, in order of start; the live ones have no `result`. */
  readonly attempts: readonly Attempt[];
  /** Those that wait for a head or a first event. */
  readonly live: readonly Attempt[];
  /** Candidates never tried nor skipped yet, in the router's order. */
  readonly untried: readonly Candidate[];
  /** Milliseconds since the first attempt began; monotonic. */
  readonly elapsedMs: number;
}

/** The next step of an exchange. */
export type AttemptDecision =
  /** Begin an attempt, after `delayMs`. Beside a live one, this is a hedge. */
  | { readonly kind: "try"; readonly candidate: Candidate; readonly delayMs?: number }
  /** Let the live ones run; ask again when one ends, or after `forMs`. */
  | { readonly kind: "wait"; readonly forMs?: number }
  /** No further attempt: the client gets the last reply that came, or an error of TokenMan's. */
  | { readonly kind: "stop" };

/** A head that came, and where it was asked for, the first event behind it. */
export interface AttemptHead {
  readonly status: number;
  readonly headers: readonly string[];
  /** The first judged event of a stream, when `holdFirstEvent` asked for it. */
  readonly firstEvent: EventVerdict | undefined;
  /** Up to 64 KiB of an error reply's body (status ≥ 400), decoded. */
  readonly errorBody: Buffer | undefined;
}

/**
 * Decides whether there is another attempt, when, and against whom. The kernel asks; it owns the loop. Once a byte
 * went to the client nothing is asked any more. Called on the hot path: keep it synchronous and cheap.
 */
export interface AttemptPolicy {
  /** Whether the first event of a 200 stream is held back and judged before the head goes out. */
  holdFirstEvent(exchange: Exchange): boolean;
  next(view: AttemptView): AttemptDecision;
  /** Whether this reply is the client's (true), or is kept back while `next` is asked. */
  accept(view: AttemptView, attempt: Attempt, head: AttemptHead): boolean;
}

/** Provided by at most one plugin; without one, the first candidate that is not skipped is tried once. */
export const AttemptPolicy: ServiceToken<AttemptPolicy> = service<AttemptPolicy>("AttemptPolicy");

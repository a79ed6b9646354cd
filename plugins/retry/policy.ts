import {
  type Attempt,
  type AttemptDecision,
  type AttemptHead,
  type AttemptPolicy,
  type AttemptView,
  type Candidate,
  type Exchange,
  type Hedging,
  type Slot,
  slot,
} from "@tokenman/plugin-sdk";
import { type BackoffLimits, waitMs } from "./backoff.ts";
import { ELSEWHERE, type Fault, faultOfError, faultOfReply } from "./fault.ts";
import type { RetryBudget } from "./retry-budget.ts";
import type { RetryConfig } from "./schema.ts";

const STOP: AttemptDecision = Object.freeze({ kind: "stop" });
const WAIT: AttemptDecision = Object.freeze({ kind: "wait" });

/** One project's settings, ready for use. */
export interface RetryRules {
  readonly maxRetries: number;
  readonly limits: BackoffLimits;
  readonly statuses: ReadonlySet<number>;
  readonly totalMs: number;
  readonly budgetShare: number;
}

export function rulesOf(config: RetryConfig): RetryRules {
  return {
    maxRetries: config.retry_max_attempts,
    limits: { baseMs: config.retry_base_delay_ms, maxMs: config.retry_max_delay_ms },
    statuses: new Set(config.retry_statuses),
    totalMs: config.retry_total_ms === 0 ? Number.POSITIVE_INFINITY : config.retry_total_ms,
    budgetShare: config.retry_budget,
  };
}

/** A project's own rules, on its exchanges. */
export const Rules: Slot<RetryRules> = slot<RetryRules>("retry.rules");

/** What went wrong with an attempt, and the monotonic time before which its candidate is not asked again. */
interface Failed extends Fault {
  readonly notBefore: number;
}
const Failure: Slot<Failed> = slot<Failed>("retry.failure");

export interface RetryParts {
  readonly rules: RetryRules;
  readonly budget: RetryBudget;
  /** Asked whether a live attempt gets company; undefined where it never does. */
  readonly hedging?: Hedging | undefined;
  /** Monotonic milliseconds. */
  readonly now?: () => number;
  readonly random?: () => number;
}

/**
 * Another provider at once where there is one that was not asked, else the same ones again, after a wait. What fails for
 * good, a reply that had begun, and whatever came too late go to the client as they are.
 */
export class RetryPolicy implements AttemptPolicy {
  readonly #rules: RetryRules;
  readonly #budget: RetryBudget;
  readonly #hedging: Hedging | undefined;
  readonly #now: () => number;
  readonly #random: () => number;

  constructor(parts: RetryParts) {
    this.#rules = parts.rules;
    this.#budget = parts.budget;
    this.#hedging = parts.hedging;
    this.#now = parts.now ?? (() => performance.now());
    this.#random = parts.random ?? Math.random;
  }

  holdFirstEvent(exchange: Exchange): boolean {
    if (exchange.dialect === undefined || exchange.request.rawBody === undefined) return false;
    // The usual case: what the client has tried itself only makes a difference after a failure.
    if (exchange.attempts.length === 1) return this.#of(exchange).maxRetries > 0;
    return asked(exchange.attempts) <= this.#allowance(exchange);
  }

  accept(view: AttemptView, attempt: Attempt, head: AttemptHead): boolean {
    const { exchange } = view;
    if (head.status < 400 && head.firstEvent?.kind !== "error") return true;
    let fault = faultOfReply(exchange, attempt, head, this.#of(exchange).statuses, Date.now());
    if (fault?.otherKey && fresh(view, attempt, fault) === undefined) fault = undefined;
    // What a second provider refuses, the one that was asked first may yet do.
    const isHedge = view.live.some(({ number }) => number < attempt.number);
    // Only somebody else can help, and there is nobody.
    if (
      !isHedge &&
      (fault === undefined || (!fault.again && view.untried.length === 0 && view.live.length === 0))
    )
      return true;
    this.#note(exchange, attempt, fault ?? ELSEWHERE);
    return false;
  }

  next(view: AttemptView): AttemptDecision {
    const { exchange, attempts } = view;
    if (attempts.length === 0) return this.#first(exchange);
    if (view.live.length > 0) return this.#hedging?.next(view) ?? WAIT;
    const last = attempts.findLast(({ result }) => result?.kind !== "skipped");
    const failure = last === undefined ? undefined : this.#failureOf(exchange, last);
    if (last !== undefined && (failure === undefined || asked(attempts) > this.#allowance(exchange)))
      return STOP;
    const rules = this.#of(exchange);
    const candidate = fresh(view, last, failure);
    if (candidate !== undefined) {
      if (last !== undefined && view.elapsedMs >= rules.totalMs) return STOP;
      this.#budget.sent(candidate.provider.name, rules.budgetShare);
      return { kind: "try", candidate };
    }
    return last === undefined || failure?.otherKey ? STOP : this.#again(view, rules);
  }

  #first(exchange: Exchange): AttemptDecision {
    const candidate = exchange.candidates[0];
    if (candidate === undefined) return STOP;
    this.#budget.sent(candidate.provider.name, this.#of(exchange).budgetShare);
    return { kind: "try", candidate };
  }

  /** The candidate that may be asked again soonest; the router's order decides between equals. */
  #again({ exchange, attempts, elapsedMs }: AttemptView, rules: RetryRules): AttemptDecision {
    let best: { readonly candidate: Candidate; readonly notBefore: number } | undefined;
    for (const candidate of exchange.candidates) {
      const last = attempts.findLast((attempt) => attempt.candidate === candidate);
      // One that was skipped would be again.
      if (last === undefined || last.result?.kind === "skipped") continue;
      const failure = this.#failureOf(exchange, last);
      if (failure?.again !== true) continue;
      if (best === undefined || failure.notBefore < best.notBefore)
        best = { candidate, notBefore: failure.notBefore };
    }
    if (best === undefined) return STOP;
    const delayMs = Math.max(0, best.notBefore - this.#now());
    // To let the client wait for a time at which nothing will be tried would be of no use.
    if (elapsedMs + delayMs >= rules.totalMs || !this.#budget.take(best.candidate.provider.name)) return STOP;
    return { kind: "try", candidate: best.candidate, delayMs };
  }

  #failureOf(exchange: Exchange, attempt: Attempt): Failed | undefined {
    const known = attempt.get(Failure);
    if (known !== undefined || attempt.result?.kind !== "error") return known;
    const fault = faultOfError(exchange, attempt.result);
    return fault === undefined ? undefined : this.#note(exchange, attempt, fault);
  }
  /** The wait is drawn once: asking twice must not make it longer or shorter. */
  #note(exchange: Exchange, attempt: Attempt, fault: Fault): Failed {
    const failures = exchange.attempts.filter(
      ({ candidate, result }) => candidate === attempt.candidate && result?.kind !== "skipped",
    ).length;
    const wait = waitMs(failures, fault.toldMs, this.#of(exchange).limits, this.#random());
    const failed = { ...fault, notBefore: this.#now() + wait };
    attempt.set(Failure, failed);
    return failed;
  }
  #of(exchange: Exchange): RetryRules {
    return exchange.get(Rules) ?? this.#rules;
  }
  /** The vendors' SDKs try again themselves, and count it: what they try is not tried here as well. */
  #allowance(exchange: Exchange): number {
    const tried = Number(exchange.request.header("x-stainless-retry-count") ?? 0);
    return Math.max(0, this.#of(exchange).maxRetries - (tried > 0 ? tried : 0));
  }
}

/** The candidate that was not asked yet and comes next after the last attempt and what went wrong with it. */
function fresh(
  { untried }: AttemptView,
  last: Attempt | undefined,
  fault: Fault | undefined,
): Candidate | undefined {
  if (fault?.otherKey) return untried.find(({ provider }) => provider === last?.provider);
  return untried[0];
}

/** Attempts that were sent, or on the point of it. */
function asked(attempts: readonly Attempt[]): number {
  return attempts.filter(({ result }) => result?.kind !== "skipped").length;
}

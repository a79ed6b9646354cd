import type { Attempt, CircuitState } from "@tokenman/plugin-sdk";
import { SlidingWindow } from "./window.ts";

/** What a circuit goes by. */
export interface CircuitRules {
  /** Failures in a row that open it. */
  readonly threshold: number;
  /** The share of failures in the window that opens it; 0 is never. */
  readonly errorRate: number;
  readonly minCalls: number;
  readonly resetMs: number;
  /** Successful probes that close it. */
  readonly probes: number;
}

/** What a probe is watched by: its reply's head. */
export type Asking = Pick<Attempt, "headMs" | "status">;

/** A permission to ask, to be given back with what came of it. */
export interface Ticket {
  readonly isProbe: boolean;
  /** The attempt that it is for, where it is a probe. */
  readonly asking?: Asking | undefined;
  /** The circuit's period in which it was given: what belongs to an earlier one says nothing about this one. */
  readonly period: number;
}

/** "neither" is an end that says nothing about the provider: called off, limited, TokenMan's own failure. */
export type Verdict = "success" | "failure" | "neither";

/** What was sent before there was a circuit to ask. */
export const EARLY: Ticket = Object.freeze({ isProbe: false, period: 0 });

/** Why nobody is asked, and for how long yet. */
export interface Refusal {
  readonly why: "forced" | "open" | "probing";
  readonly forMs: number | undefined;
  /** It is the model that is not asked for; others are. */
  readonly isModels?: true;
}

/**
 * The circuit of a provider or of one of its models. Closed, it lets everything through and counts; open, nothing, until `resetMs` have passed;
 * half-open, one probe at a time, until enough of them succeeded (closed) or one failed (open again). All times are
 * monotonic milliseconds and given by the caller.
 */
export class Circuit {
  readonly #window: SlidingWindow;
  #state: CircuitState = "closed";
  #forced = false;
  #row = 0;
  #openedAt = 0;
  #reason: string | undefined;
  /** The probe that nobody heard of yet. */
  #probe: Ticket | undefined;
  #successes = 0;
  #free: Ticket = EARLY;

  constructor(windowMs: number) {
    this.#window = new SlidingWindow(windowMs);
  }

  get state(): CircuitState {
    return this.#state;
  }
  /** What everybody gets while it is closed. */
  get free(): Ticket {
    return this.#free;
  }
  get isForced(): boolean {
    return this.#forced;
  }
  get failuresInRow(): number {
    return this.#row;
  }
  /** Monotonic; undefined while it is closed. */
  get openedAt(): number | undefined {
    return this.#state === "closed" ? undefined : this.#openedAt;
  }
  /** Why it opened the last time. */
  get reason(): string | undefined {
    return this.#reason;
  }
  recent(now: number): { readonly calls: number; readonly failures: number } {
    return this.#window.sum(now);
  }
  /** Milliseconds until a probe may go; undefined unless it is open by itself. */
  probeInMs(now: number, rules: CircuitRules): number | undefined {
    if (this.#state !== "open" || this.#forced) return undefined;
    return Math.max(0, this.#openedAt + rules.resetMs - now);
  }

  /** Nothing has failed lately: what is forgotten with it is worth nothing. */
  isQuiet(now: number): boolean {
    return this.#state === "closed" && this.#row === 0 && this.#window.sum(now).failures === 0;
  }

  /** Asks to send a request. Every ticket comes back through {@link settle}. */
  admit(now: number, rules: CircuitRules, asking?: Asking): Ticket | Refusal {
    if (this.#state === "closed") return this.#free;
    if (this.#forced) return { why: "forced", forMs: undefined };
    if (this.#state === "open") {
      const forMs = this.#openedAt + rules.resetMs - now;
      if (forMs > 0) return { why: "open", forMs };
      this.#enter("half-open");
    }
    // A probe whose reply has begun may take minutes to end, and others need not wait for that.
    if (this.#probe !== undefined && !hasBegun(this.#probe.asking))
      return { why: "probing", forMs: undefined };
    this.#probe = { isProbe: true, period: this.#free.period, asking };
    return this.#probe;
  }

  /** What came of a ticket. Returns the state that the circuit changed to, where it did. */
  settle(ticket: Ticket, verdict: Verdict, now: number, rules: CircuitRules): CircuitState | undefined {
    if (this.#probe === ticket) this.#probe = undefined;
    if (ticket.period !== this.#free.period || this.#forced || verdict === "neither") return undefined;
    this.#window.add(now, verdict === "failure");
    if (verdict === "failure") this.#row++;
    else this.#row = 0;
    if (this.#state === "half-open") {
      if (verdict === "failure") return this.#open(now, "the probe failed");
      this.#successes++;
      return this.#successes >= rules.probes ? this.#enter("closed") : undefined;
    }
    if (verdict === "success") return undefined;
    if (this.#row >= rules.threshold) return this.#open(now, `${this.#row} failures in a row`);
    const { calls, failures } = this.#window.sum(now);
    if (rules.errorRate > 0 && calls >= rules.minCalls && failures / calls >= rules.errorRate)
      return this.#open(now, `${failures} of ${calls} attempts failed`);
    return undefined;
  }

  /** Sets it by hand; "auto" closes it, and lets it work by itself again. */
  force(state: "open" | "closed" | "auto", now: number): void {
    this.#forced = state !== "auto";
    if (state === "open") this.#open(now, "set by hand");
    else this.#enter("closed");
  }

  #open(now: number, reason: string): CircuitState {
    this.#openedAt = now;
    this.#reason = reason;
    return this.#enter("open");
  }
  #enter(state: CircuitState): CircuitState {
    this.#state = state;
    this.#free = Object.freeze({ isProbe: false, period: this.#free.period + 1 });
    this.#probe = undefined;
    this.#successes = 0;
    if (state === "closed") {
      this.#row = 0;
      this.#window.clear();
    }
    return state;
  }
}

/** Whether there is a head, and not one that says that it failed. */
function hasBegun(asking: Asking | undefined): boolean {
  return asking?.headMs !== undefined && (asking.status ?? 0) < 500;
}

import {
  type Attempt,
  type AttemptDecision,
  type AttemptView,
  type Exchange,
  type Hedging,
  type Slot,
  slot,
} from "@tokenman/plugin-sdk";
import type { Latencies } from "./latencies.ts";
import type { HedgeConfig } from "./schema.ts";
import type { Share } from "./share.ts";

/** The settings of an exchange that may be hedged; none on any other. */
export const Rules: Slot<HedgeConfig> = slot<HedgeConfig>("hedge.rules");

/** What is known of the attempt that is waited for. */
interface Waiting {
  readonly attempt: Attempt;
  /** When it was first seen to be under way; monotonic milliseconds. */
  readonly since: number;
  /** A second one is paid for: there is one an exchange. */
  readonly hedged: boolean;
}
const Waiting: Slot<Waiting> = slot<Waiting>("hedge.waiting");

export interface HedgeCounts {
  begun: number;
  /** Those whose second attempt was the client's. */
  won: number;
}

export interface HedgerParts {
  readonly latencies: Latencies;
  readonly share: Share;
  readonly counts: HedgeCounts;
  /** Monotonic milliseconds. */
  readonly now?: () => number;
}

/** Begins a second attempt where the first has been silent for longer than its like nearly always are. */
export class Hedger implements Hedging {
  readonly #parts: HedgerParts;
  readonly #now: () => number;

  constructor(parts: HedgerParts) {
    this.#parts = parts;
    this.#now = parts.now ?? (() => performance.now());
  }

  next({ exchange, attempts, live, untried }: AttemptView): AttemptDecision | undefined {
    const rules = exchange.get(Rules);
    const attempt = live[0];
    if (rules === undefined || attempt === undefined || live.length > 1) return undefined;
    let waiting = exchange.get(Waiting);
    if (waiting?.hedged === true && waiting.attempt !== attempt) return undefined;
    // It was sent, and has ended; one that was skipped makes way for another.
    if (attempts.some(({ number, result }) => number > attempt.number && result?.kind !== "skipped"))
      return undefined;
    const other = untried.find(({ provider }) => provider !== attempt.provider);
    if (other === undefined) return undefined;
    const now = this.#now();
    if (waiting?.attempt !== attempt) {
      waiting = { attempt, since: now, hedged: false };
      exchange.set(Waiting, waiting);
    }
    const { initial_delay_ms, min_delay_ms } = rules;
    const { latencies, share, counts } = this.#parts;
    const delayMs = Math.max(min_delay_ms, latencies.p95(keyOf(exchange, attempt)) ?? initial_delay_ms);
    const leftMs = waiting.since + delayMs - now;
    if (leftMs > 0) return { kind: "wait", forMs: leftMs };
    if (!waiting.hedged) {
      if (!share.take()) return undefined;
      counts.begun++;
      exchange.set(Waiting, { ...waiting, hedged: true });
    }
    return { kind: "try", candidate: other };
  }

  /** Learns how long an attempt took until something of its reply came. */
  readonly attemptEnd = (exchange: Exchange, attempt: Attempt): void => {
    const { result } = attempt;
    const waiting = exchange.get(Waiting);
    const isAwaited = waiting?.attempt === attempt;
    const ms = silentMs(exchange, attempt);
    if (ms !== undefined) {
      this.#parts.latencies.add(keyOf(exchange, attempt), ms);
      if (waiting?.hedged === true && !isAwaited) this.#parts.counts.won++;
    } else if (isAwaited && waiting.hedged && (result?.kind === "cancelled" || result?.kind === "reply")) {
      // Overtaken: it would have taken longer still. Without it, those that are too slow would never be heard of.
      this.#parts.latencies.add(keyOf(exchange, attempt), this.#now() - waiting.since);
    }
  };
}

/** How long an attempt took until something of its answer came; undefined where nothing did. */
function silentMs(exchange: Exchange, { result, status, headMs, firstByteMs }: Attempt): number | undefined {
  if (result?.kind !== "reply" || status === undefined || status >= 300) return undefined;
  if (exchange.description?.stream !== true) return headMs;
  // A provider in this process has no bytes that are counted; one that was called off may have had none.
  return firstByteMs ?? (result.body === "aborted" ? undefined : headMs);
}

/** A reply that is not streamed has its head when all of it is there: its times are its own. */
function keyOf(exchange: Exchange, { provider, candidate }: Attempt): string {
  const { model, stream } = exchange.description ?? {};
  return `${provider.name}\n${candidate.model ?? model}\n${stream}`;
}

/**
 * Whether a request may be asked twice: one that generates, whose body is at hand, and for which the provider runs no
 * tools, which would then run twice.
 */
export function mayBeHedged({ dialect, description, request }: Exchange): boolean {
  if (dialect?.generates !== true || request.rawBody === undefined) return false;
  return description !== undefined && description.tools !== "server";
}

import {
  type Attempt,
  type Candidate,
  type Exchange,
  type Reply,
  type Slot,
  slot,
} from "@tokenman/plugin-sdk";
import type { Affinity } from "./affinity.ts";

/** Where the exchange's route begins, on those that were put before it. */
const First: Slot<Candidate> = slot<Candidate>("router.first");

/**
 * Keeps conversations where their prompt cache is warm: one that another provider or key took over, because the first
 * failed, stays there until that one fails in its turn, or the conversation rests for `ttlMs`.
 */
export class Ways {
  readonly #affinity: Affinity;
  readonly #ttlMs: number;

  constructor(affinity: Affinity, ttlMs: number) {
    this.#affinity = affinity;
    this.#ttlMs = ttlMs;
  }

  /** The candidates in the order in which this conversation asks them. Costs nothing where all are where they begin. */
  order(exchange: Exchange, candidates: readonly Candidate[]): readonly Candidate[] {
    if (candidates.length < 2 || this.#ttlMs === 0 || this.#affinity.isEmpty) return candidates;
    const at = this.#affinity.find(conversationOf(exchange), candidates);
    if (at < 0) return candidates;
    exchange.set(First, candidates[0]!);
    const there = candidates[at]!;
    if (at === 0) return candidates;
    const reason = `${there.reason}; the conversation is there already`;
    return [{ ...there, reason }, ...candidates.filter((candidate) => candidate !== there)];
  }

  /** Remembers who served the conversation, where the one that was asked first failed it. */
  served({ attempt, status }: Reply, exchange: Exchange): void {
    const { candidates, attempts } = exchange;
    if (candidates.length < 2 || this.#ttlMs === 0 || attempt === undefined || status >= 400) return;
    const { candidate } = attempt;
    const asked = candidates[0]!;
    const moved = exchange.get(First);
    const first = moved ?? asked;
    // Whom another one merely overtook has not failed: the conversation goes on with it.
    const hasMoved =
      !isSamePlace(candidate, asked) &&
      attempts.some((each) => isSamePlace(each.candidate, asked) && hasFailed(each));
    const place = hasMoved ? candidate : asked;
    if (!isSamePlace(place, first)) this.#affinity.stay(conversationOf(exchange), place, this.#ttlMs);
    else if (moved !== undefined) this.#affinity.forget(conversationOf(exchange));
  }
}

function hasFailed({ result, status = 0, streamError }: Attempt): boolean {
  return result?.kind === "skipped" || result?.kind === "error" || status >= 400 || streamError !== undefined;
}

function isSamePlace(left: Candidate, right: Candidate): boolean {
  return left.provider === right.provider && left.account === right.account;
}

/** A client may use several models in one session, and a prompt cache is one model's. */
function conversationOf(exchange: Exchange): string {
  const { project, format, description, session } = exchange;
  return `${project}\n${format?.name ?? ""} ${description?.model ?? ""}\n${session}`;
}

import type { Cut, InnerExchange } from "@tokenman/plugin-sdk";

/** A summary that is there, and what its call has cost. */
export interface Draft {
  readonly cut: Cut;
  /** Tokens of the summary itself. */
  readonly tokens: number;
}

/** Calls at the same time, of all conversations. */
const MAX_CALLS = 4;
const MAX_CONVERSATIONS = 1_000;
/** How long a conversation is left alone whose summary failed. */
const FAILED_MS = 600_000;

/**
 * Summaries that are being made, and those that wait to be sent. In memory, over reloads: what is lost with the process is
 * made again.
 */
export class Drafts {
  readonly #ready = new Map<string, Draft>();
  readonly #calls = new Map<string, InnerExchange | undefined>();
  readonly #failedAt = new Map<string, number>();
  /** Which conversation a call is for, by the exchange's id. */
  readonly #callers = new Map<string, string>();
  /** Nano-dollars that calls have cost, and that are not accounted for yet. */
  readonly #spent = new Map<string, number>();

  /** Summaries that are being made. */
  get underWay(): number {
    return this.#calls.size;
  }
  ready(key: string): Draft | undefined {
    return this.#ready.get(key);
  }
  drop(key: string): void {
    this.#ready.delete(key);
  }
  /** Whether a call for the conversation may be begun. */
  mayBegin(key: string, now: number): boolean {
    if (this.#calls.has(key) || this.#calls.size >= MAX_CALLS) return false;
    return now - (this.#failedAt.get(key) ?? Number.NEGATIVE_INFINITY) >= FAILED_MS;
  }
  /** Takes the conversation's place, before there is a call. */
  begins(key: string): void {
    this.#calls.set(key, undefined);
  }
  asked(key: string, call: InnerExchange): void {
    this.#calls.set(key, call);
    keep(this.#callers, call.id, key);
  }
  made(key: string, draft: Draft): void {
    this.#calls.delete(key);
    keep(this.#ready, key, draft);
  }
  failed(key: string, now: number): void {
    this.#calls.delete(key);
    keep(this.#failedAt, key, now);
  }
  /** A call of these has ended. */
  cost(exchangeId: string, nanoUsd: number): void {
    const key = this.#callers.get(exchangeId);
    if (key === undefined) return;
    this.#callers.delete(exchangeId);
    if (nanoUsd > 0) keep(this.#spent, key, (this.#spent.get(key) ?? 0) + nanoUsd);
  }
  /** What calls for the conversation have cost since this was asked last. */
  takeSpent(key: string): number | undefined {
    const spent = this.#spent.get(key);
    this.#spent.delete(key);
    return spent;
  }
  abort(): void {
    for (const call of this.#calls.values()) call?.abort();
  }
}

function keep<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key);
  map.set(key, value);
  if (map.size > MAX_CONVERSATIONS) map.delete(map.keys().next().value!);
}

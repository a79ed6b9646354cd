import crypto from "node:crypto";
import type { Candidate } from "@tokenman/plugin-sdk";

/** Where a conversation is served: the provider, and where it has several keys, the one. */
interface Place {
  readonly provider: string;
  readonly account: string | undefined;
  /** Milliseconds, monotonic. */
  readonly until: number;
}

/** Conversations named by clients are remembered: not more than so many. */
const MAX_PLACES = 10_000;
const MAX_NAME = 200;

/**
 * Remembers which conversations are served elsewhere than their route would begin, because a provider or a key failed
 * them: the prompt cache is warm where they are, so there they stay. Those that are where their route begins need no
 * entry, so that with healthy providers this is empty.
 */
export class Affinity {
  readonly #places = new Map<string, Place>();
  readonly #now: () => number;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }
  get isEmpty(): boolean {
    return this.#places.size === 0;
  }

  /** The position of the candidate that serves the conversation; -1 where none is remembered, or that one is gone. */
  find(conversation: string, candidates: readonly Candidate[]): number {
    const place = this.#places.get(keyOf(conversation));
    if (place === undefined) return -1;
    if (place.until <= this.#now()) {
      this.#places.delete(keyOf(conversation));
      return -1;
    }
    return candidates.findIndex(
      ({ provider, account }) => provider.name === place.provider && account === place.account,
    );
  }
  /** The conversation is served there, for `ttlMs` after its last request. */
  stay(conversation: string, { provider, account }: Candidate, ttlMs: number): void {
    const key = keyOf(conversation);
    // Put at the end, so that the one that was not used for the longest time is the first to go.
    this.#places.delete(key);
    if (this.#places.size >= MAX_PLACES) this.#places.delete(this.#places.keys().next().value!);
    this.#places.set(key, { provider: provider.name, account, until: this.#now() + ttlMs });
  }
  /** The conversation is where its route begins. */
  forget(conversation: string): void {
    this.#places.delete(keyOf(conversation));
  }
}

/** Clients name their sessions, as long as they like. */
function keyOf(conversation: string): string {
  return conversation.length <= MAX_NAME ? conversation : crypto.hash("sha256", conversation, "base64url");
}

import type { Advice } from "./advice.ts";

const MAX_ACCOUNTS = 1_000;

/** What is left of one quota, until when; monotonic milliseconds. */
interface Left {
  remaining: number;
  readonly until: number;
}

interface Account {
  pausedUntil: number;
  requests: Left | undefined;
  tokens: Left | undefined;
}

/**
 * What providers said about what is left, by account: a provider and the credential it is asked with. Nothing is
 * guessed: without a provider's word, or once its time is over, an account is open.
 */
export class Quotas {
  readonly #accounts = new Map<string, Account>();
  readonly #now: () => number;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Milliseconds until the account may be asked again. */
  delayMs(account: string): number {
    const known = this.#accounts.get(account);
    if (known === undefined) return 0;
    const now = this.#now();
    let until = known.pausedUntil;
    for (const left of [known.requests, known.tokens])
      if (left !== undefined && left.remaining <= 0) until = Math.max(until, left.until);
    // To the microsecond: sums of fractions are off by less.
    return Math.max(0, Math.round((until - now) * 1e3) / 1e3);
  }
  /** A request goes out: what the provider said is left is one less, until it says more. */
  take(account: string): void {
    const left = this.#accounts.get(account)?.requests;
    if (left !== undefined) left.remaining--;
  }
  learn(account: string, { pauseMs, requests, tokens }: Advice): void {
    if (pauseMs === undefined && requests === undefined && tokens === undefined) return;
    const now = this.#now();
    let known = this.#accounts.get(account);
    if (known === undefined) {
      if (this.#accounts.size >= MAX_ACCOUNTS) this.#accounts.delete(this.#accounts.keys().next().value!);
      known = { pausedUntil: 0, requests: undefined, tokens: undefined };
      this.#accounts.set(account, known);
    }
    if (pauseMs !== undefined) known.pausedUntil = Math.max(known.pausedUntil, now + pauseMs);
    if (requests !== undefined)
      known.requests = { remaining: requests.remaining, until: now + requests.resetMs };
    if (tokens !== undefined) known.tokens = { remaining: tokens.remaining, until: now + tokens.resetMs };
  }
}

import type { Answer, ListedModel } from "@tokenman/plugin-sdk";

/** What came of asking for a list: the models, or an answer that is none, or a failure. */
export type Fetched = { readonly models: readonly ListedModel[] } | { readonly refusal: Answer | undefined };

interface Entry {
  /** The last list that came. */
  models: readonly ListedModel[] | undefined;
  /** The answer that came in the place of one, since then. */
  refusal: Answer | undefined;
  /** Milliseconds, monotonic: when it is asked for again. */
  dueAt: number;
  pending: Promise<void> | undefined;
}

/** What is known of one list. */
export type Known = Pick<Entry, "models" | "refusal">;

const NOTHING: Known = Object.freeze({ models: undefined, refusal: undefined });
/** Lists differ with the credential that asks, and credentials are the clients'. */
const MAX_LISTS = 200;
/** A list that could not be had is asked for again after this long, so that each answer does not wait for it. */
const RETRY_MS = 10_000;

/** The providers' lists of models. Each is fetched once however many ask for it, and the last good one is kept. */
export class Catalogue {
  readonly #lists = new Map<string, Entry>();
  readonly #now: () => number;

  /** `now`: monotonic milliseconds. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** Has the list of `key` fetched where it is not there or older than `ttlMs`. Undefined where it is there. */
  refresh(key: string, ttlMs: number, fetch: () => Promise<Fetched>): Promise<void> | undefined {
    let entry = this.#lists.get(key);
    if (entry === undefined) {
      // The oldest goes; whoever waits for it still gets it.
      if (this.#lists.size >= MAX_LISTS) this.#lists.delete(this.#lists.keys().next().value!);
      entry = { models: undefined, refusal: undefined, dueAt: 0, pending: undefined };
      this.#lists.set(key, entry);
    }
    if (entry.pending !== undefined) return entry.pending;
    if (entry.dueAt > this.#now()) return undefined;
    entry.pending = this.#fetch(entry, ttlMs, fetch);
    return entry.pending;
  }
  known(key: string): Known {
    return this.#lists.get(key) ?? NOTHING;
  }

  async #fetch(entry: Entry, ttlMs: number, fetch: () => Promise<Fetched>): Promise<void> {
    const fetched = await fetch();
    if ("models" in fetched) {
      entry.models = fetched.models;
      entry.refusal = undefined;
    } else entry.refusal = fetched.refusal;
    entry.dueAt = this.#now() + ("models" in fetched ? ttlMs : Math.min(ttlMs, RETRY_MS));
    entry.pending = undefined;
  }
}

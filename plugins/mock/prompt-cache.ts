/** An entry takes about 150 bytes, so this many stay below 10 MB. */
const MAX_ENTRIES = 65_536;

/** Which prefixes a provider would have in its prompt cache. The least recently used go when it is full. */
export class PromptCache {
  readonly #now: () => number;
  /** Times of death by key, least recently used first. */
  readonly #entries = new Map<string, number>();

  constructor(now: () => number) {
    this.#now = now;
  }

  get size(): number {
    return this.#entries.size;
  }

  has(key: string): boolean {
    const until = this.#entries.get(key);
    if (until === undefined) return false;
    if (until > this.#now()) return true;
    this.#entries.delete(key);
    return false;
  }

  /** Makes an entry, or gives it a new lease of `ttlMs` from now. */
  put(key: string, ttlMs: number): void {
    this.#entries.delete(key);
    this.#entries.set(key, this.#now() + ttlMs);
    if (this.#entries.size > MAX_ENTRIES) this.#entries.delete(this.#entries.keys().next().value!);
  }
}

/** What a request bills, and what becomes cached by it. Kinds are disjoint: their sum is the prompt. */
export interface CachePlan {
  readonly inputTokens: number;
  readonly readTokens: number;
  readonly write5mTokens: number;
  readonly write1hTokens: number;
  /** Makes the new entries: called when the reply begins, so that requests side by side all miss. */
  commit(): void;
}

/** The plan of a prompt that is not cached at all. */
export function uncached(tokens: number): CachePlan {
  return { inputTokens: tokens, readTokens: 0, write5mTokens: 0, write1hTokens: 0, commit() {} };
}

/** Sessions of which something is known; a thousand bytes each at the most. */
const MAX_SESSIONS = 10_000;
/** Before so many exchanges nothing is a loss: what is written to a cache pays from the next turn on. */
const MIN_EXCHANGES = 3;

/** What a plugin did for a session so far. */
export interface Effect {
  exchanges: number;
  nanoUsd: number;
  /** It costs more than it saves. */
  isLoss: boolean;
}

/** What the provider had cached of a session after its last answered turn. */
export interface LastTurn {
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly totalTokens: number;
  readonly cachedTokens: number;
  /** How long that lives. */
  readonly ttlMs: number;
}

export interface Session {
  last: LastTurn | undefined;
  readonly effects: Map<string, Effect>;
  /** Whether it is held out, once that was asked. */
  held: boolean | undefined;
}

/** The sessions of late, by key; the least recently used is forgotten first. Neither exchanges nor texts are kept. */
export class Sessions {
  readonly #sessions = new Map<string, Session>();

  find(key: string): Session | undefined {
    return this.#sessions.get(key);
  }
  /** The session of that key, new where there was none, as the most recently used one. */
  of(key: string): Session {
    let session = this.#sessions.get(key);
    if (session === undefined) session = { last: undefined, effects: new Map(), held: undefined };
    else this.#sessions.delete(key);
    this.#sessions.set(key, session);
    if (this.#sessions.size > MAX_SESSIONS) this.#sessions.delete(this.#sessions.keys().next().value!);
    return session;
  }
}

/** Adds what one exchange saved. Gives "loss" or "gain" where the balance has just turned. */
export function addEffect(session: Session, plugin: string, nanoUsd: number): "loss" | "gain" | undefined {
  let effect = session.effects.get(plugin);
  if (effect === undefined) {
    effect = { exchanges: 0, nanoUsd: 0, isLoss: false };
    session.effects.set(plugin, effect);
  }
  effect.exchanges++;
  effect.nanoUsd += nanoUsd;
  const isLoss = effect.exchanges >= MIN_EXCHANGES && effect.nanoUsd < 0;
  if (isLoss === effect.isLoss) return undefined;
  effect.isLoss = isLoss;
  return isLoss ? "loss" : "gain";
}

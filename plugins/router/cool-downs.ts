import crypto from "node:crypto";
import type { Secret } from "@tokenman/plugin-sdk";

/** Why a key is left alone, and for how long. */
export interface CoolDown {
  readonly status: number;
  readonly forMs: number;
}

/** Where a 429 does not say when; and a 401, which may be the provider's own fault for a moment. */
const LIMITED_MS = 30_000;
const REFUSED_MS = 60_000;
const MIN_MS = 1_000;
const MAX_MS = 10 * 60_000;
const MAX_KEYS = 1_000;

/** Which keys of providers that have several are left alone at present. Keys are told apart by a hash. */
export class CoolDowns {
  readonly #until = new Map<string, { readonly status: number; readonly at: number }>();
  readonly #now: () => number;

  /** `now`: monotonic milliseconds. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** The provider answered 401 or 429 to the key; `toldMs` is what it said about when. */
  refused(provider: string, secret: Secret, status: number, toldMs: number | undefined): CoolDown {
    const fallback = status === 429 ? LIMITED_MS : REFUSED_MS;
    const forMs = Math.min(MAX_MS, Math.max(MIN_MS, toldMs ?? fallback));
    if (this.#until.size >= MAX_KEYS) this.#until.delete(this.#until.keys().next().value!);
    this.#until.set(keyOf(provider, secret), { status, at: this.#now() + forMs });
    return { status, forMs };
  }
  /** Undefined for a key that may be used. */
  find(provider: string, secret: Secret): CoolDown | undefined {
    if (this.#until.size === 0) return undefined;
    const key = keyOf(provider, secret);
    const known = this.#until.get(key);
    if (known === undefined) return undefined;
    const forMs = known.at - this.#now();
    if (forMs > 0) return { status: known.status, forMs };
    this.#until.delete(key);
    return undefined;
  }
}

function keyOf(provider: string, secret: Secret): string {
  return `${provider}\n${crypto.hash("sha256", secret.reveal(), "base64url")}`;
}

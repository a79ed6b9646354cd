import {
  type AnswerKey,
  AnswerKeys,
  CACHE_HEADER,
  type CacheRequest,
  coalesced,
  type Exchange,
  Flight,
  type Joined,
  type Pricing,
  type Reply,
  type ReplyInit,
  replay,
  type Slot,
  type StoredReply,
  slot,
  storedReply,
  storeNow,
  withHeader,
} from "@tokenman/plugin-sdk";
import type { Cache } from "./cache.ts";
import { bodyWithout } from "./ignore.ts";
import { Rules } from "./rules.ts";
import type { CacheConfig } from "./schema.ts";

/** How often a request waits for another one that then turns out to have no answer for it, before it goes by itself. */
const MAX_WAITS = 3;

/** What becomes of an exchange that was not answered here: its reply may be stored, or must not be. */
const Part: Slot<Flight | "bypass"> = slot<Flight | "bypass">("cache.part");

export interface LookupOptions {
  readonly cache: Cache;
  readonly config: CacheConfig;
  readonly ttlMs: number;
  /** Digest of the rest of the config that decides how requests are answered. Asked for with the first request. */
  readonly scope: () => string;
  /** Keys the digests of long bodies. */
  readonly secret: () => Buffer;
  readonly pricing: Pricing | undefined;
}

/** The taps of one effective config: answers from the store, from another request in flight, or learns what was answered. */
export class Lookup {
  readonly #cache: Cache;
  readonly #config: CacheConfig;
  readonly #rules: Rules;
  readonly #ttlMs: number;
  readonly #keys: AnswerKeys;
  readonly #ignored: ReadonlySet<string> | undefined;
  readonly #pricing: Pricing | undefined;

  constructor({ cache, config, ttlMs, scope, secret, pricing }: LookupOptions) {
    this.#cache = cache;
    this.#config = config;
    this.#rules = new Rules(config);
    this.#ttlMs = ttlMs;
    const { policy, exclude_paths: excluded, ignore_fields: ignored } = config;
    this.#ignored = ignored.length === 0 ? undefined : new Set(ignored);
    // By other rules the same request may not be one that is answered.
    this.#keys = new AnswerKeys({
      scope: () => JSON.stringify([scope(), policy, excluded, ignored]),
      secret,
    });
    this.#pricing = pricing;
  }

  readonly request = (exchange: Exchange): ReplyInit | undefined | Promise<ReplyInit | undefined> => {
    const { rawBody } = exchange.request;
    if (exchange.dialect === undefined || rawBody === undefined) return undefined;
    const variant = this.#keys.variantOf(exchange);
    const { asked } = variant;
    if (asked.noStore) return this.#bypass(exchange);
    if (this.#ignored === undefined) {
      const recalled = this.#mayHit(asked) ? this.#cache.recall(variant.words, rawBody) : undefined;
      const hit = recalled === undefined ? undefined : this.#hit(exchange, asked, recalled);
      return hit ?? this.#look(exchange, this.#keys.keyOf(variant, rawBody), asked, 0);
    }
    // What makes no difference to the answer may make one to the rules.
    const { body } = exchange.request;
    const rest = body === undefined ? undefined : bodyWithout(body, this.#ignored);
    if (rest === undefined || !this.#rules.admits(exchange)) return this.#bypass(exchange);
    return this.#look(exchange, this.#keys.keyOf(variant, rest), asked, 0);
  };

  readonly response = (reply: Reply, exchange: Exchange): void => {
    const part = exchange.get(Part);
    if (part === undefined) return;
    if (part !== "bypass") part.land(reply, this.#config.max_entry_bytes);
    if (reply.origin === "provider")
      reply.headers = withHeader(reply.headers, CACHE_HEADER, part === "bypass" ? "BYPASS" : "MISS");
  };

  readonly settled = (exchange: Exchange): void => {
    const part = exchange.get(Part);
    if (!(part instanceof Flight)) return;
    const isKept = this.#ttlMs > 0 && !this.#cache.isPurged(part, exchange.project);
    const stored = isKept ? storedReply(exchange, part) : undefined;
    if (stored !== undefined) this.#cache.put(part.key, exchange.project, stored);
    this.#cache.flights.end(part);
  };

  #bypass(exchange: Exchange): undefined {
    this.#cache.bypassed++;
    exchange.set(Part, "bypass");
  }
  #look(
    exchange: Exchange,
    key: AnswerKey,
    asked: CacheRequest,
    waits: number,
  ): ReplyInit | undefined | Promise<ReplyInit | undefined> {
    const remembered = this.#ignored === undefined ? exchange.request.rawBody : undefined;
    const found = this.#mayHit(asked) ? this.#cache.find(key, remembered) : undefined;
    return found instanceof Promise
      ? exchange.wait(found).then((stored) => this.#answer(exchange, key, asked, stored, waits))
      : this.#answer(exchange, key, asked, found, waits);
  }
  #answer(
    exchange: Exchange,
    key: AnswerKey,
    asked: CacheRequest,
    stored: StoredReply | undefined,
    waits: number,
  ): ReplyInit | undefined | Promise<ReplyInit | undefined> {
    const hit = stored === undefined ? undefined : this.#hit(exchange, asked, stored);
    if (hit !== undefined) return hit;
    // One that is stored was admitted.
    if (!this.#rules.admits(exchange)) return this.#bypass(exchange);
    if (asked.onlyIfCached)
      return exchange.refuse({ code: "TM_NOT_CACHED", message: "No stored answer fits the request." });
    const flight = this.#config.coalesce && !asked.refresh ? this.#flightFor(exchange, key) : undefined;
    const joined = flight?.follow(exchange);
    if (joined instanceof Promise) {
      return joined.then((late) => {
        if (late !== undefined) return this.#follow(exchange, late);
        if (exchange.signal.aborted) return undefined;
        return waits + 1 < MAX_WAITS
          ? this.#look(exchange, key, asked, waits + 1)
          : this.#lead(exchange, key, false);
      });
    }
    if (joined !== undefined) return this.#follow(exchange, joined);
    const isShared =
      this.#config.coalesce && (!asked.refresh || this.#flightFor(exchange, key) === undefined);
    return this.#lead(exchange, key, isShared);
  }

  #flightFor(exchange: Exchange, key: AnswerKey): Flight | undefined {
    const flight = this.#cache.flights.find(key);
    return flight === undefined || this.#cache.isPurged(flight, exchange.project) ? undefined : flight;
  }
  #mayHit(asked: CacheRequest): boolean {
    return !asked.refresh && this.#ttlMs > 0;
  }
  /** Undefined where it is too old. */
  #hit(exchange: Exchange, asked: CacheRequest, stored: StoredReply): ReplyInit | undefined {
    const ageMs = storeNow() - stored.at;
    if (ageMs > Math.min(this.#ttlMs - asked.minFreshMs, asked.maxAgeMs)) return undefined;
    this.#cache.hits++;
    return replay(exchange, "cache", stored, ageMs);
  }
  #follow(exchange: Exchange, joined: Joined): ReplyInit {
    if (joined.attempt !== undefined) this.#cache.coalesced++;
    return coalesced(exchange, "cache", joined, this.#pricing);
  }
  /** The request goes upstream, and its reply is there for others. */
  #lead(exchange: Exchange, key: AnswerKey, isShared: boolean): undefined {
    this.#cache.misses++;
    if (exchange.dialect?.generates === true) exchange.trackUsage();
    exchange.set(Part, this.#cache.flights.begin(key, exchange, isShared));
  }
}

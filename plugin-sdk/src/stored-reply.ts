/** What is kept of a whole reply, and how it is given again. */
import { tellsApart } from "./cache-request.ts";
import type { Usage } from "./dialect.ts";
import type { Attempt, Exchange } from "./exchange.ts";
import { type Flight, isWhole, type Joined } from "./flights.ts";
import { HeaderShapes } from "./header-shapes.ts";
import { headerValue, headerValues, type RawHeaders } from "./headers.ts";
import { AttemptBill, addSaving, type LedgerSaving } from "./ledger.ts";
import { type Pricing, priceFormat } from "./pricing.ts";
import type { ReplyInit } from "./reply.ts";

/** Tells a client what the response cache, or who else gives it another request's answer, had for it. */
export const CACHE_HEADER = "X-Tokenman-Cache";
const PROVIDER_HEADER = "X-Tokenman-Provider";

export interface StoredReply {
  /** Without those that belong to its own moment or connection. */
  readonly headers: RawHeaders;
  /** As it was sent, in its Content-Encoding. It may be a part of larger memory: who keeps it for long makes a copy. */
  readonly body: Buffer;
  /** Whether it came without a length: so it goes out again. */
  readonly chunked: boolean;
  readonly provider: string;
  /** When it was complete, in milliseconds since the epoch, as {@link storeNow} tells them. */
  readonly at: number;
  /** What it took: tokens of input and output, and nano-dollars; undefined where not known. */
  readonly tokens: number;
  readonly nanoUsd: number | undefined;
}

/**
 * Milliseconds since the epoch that never jump while the process lives: the age of what is stored must not depend on a
 * clock that is set.
 */
export function storeNow(): number {
  return performance.timeOrigin + performance.now();
}

/** Headers that speak of one moment, one connection, or one client, and would be untrue in a replay. */
const MOMENTARY: ReadonlySet<string> = new Set([
  "age",
  "alt-svc",
  "authentication-info",
  "clear-site-data",
  "content-length",
  "date",
  "retry-after",
  "retry-after-ms",
  "set-cookie",
  "set-cookie2",
  "transfer-encoding",
  "www-authenticate",
  "x-should-retry",
]);
/** `anthropic-ratelimit-…`, `x-ratelimit-…`, `ratelimit-…`: what is left of a limit. `x-tokenman-…`: TokenMan's own. */
const MOMENTARY_START = /^(?:(?:anthropic-|x-)?ratelimit|x-tokenman-)/;

const shapes = new HeaderShapes((name) => !MOMENTARY.has(name) && !MOMENTARY_START.test(name));

function lasting(headers: RawHeaders): RawHeaders {
  const kept: string[] = [];
  shapes.collect(headers, kept);
  return kept;
}

/**
 * What may be kept of the reply of an exchange that has settled: a complete 200 with at least one token in it, that its
 * sender lets be stored. Undefined for any other: errors, broken streams, what is beyond the flight's buffer.
 */
export function storedReply(exchange: Exchange, flight: Flight): StoredReply | undefined {
  const { shared, attempt } = flight;
  if (shared === undefined || attempt === undefined || shared.status !== 200) return undefined;
  if (!isWhole(exchange, attempt) || !mayBeStored(shared.headers)) return undefined;
  const body = shared.whole();
  if (body === undefined) return undefined;
  return {
    headers: lasting(shared.headers),
    body,
    chunked: headerValue(shared.headers, "content-length") === undefined,
    provider: attempt.provider.name,
    at: storeNow(),
    tokens: tokensOf(attempt.get(AttemptBill)?.usage ?? attempt.usage),
    nanoUsd: attempt.get(AttemptBill)?.cost?.total,
  };
}

/**
 * By Cache-Control, and by what Vary says the reply depends on, which must be among what requests are told apart by
 * (RFC 9111 §4.1). A model's reply depends on neither time nor agent: what is only to be revalidated is kept.
 */
function mayBeStored(headers: RawHeaders): boolean {
  if (headerValues(headers, "cache-control").some((value) => NO_STORE.test(value))) return false;
  return headerValues(headers, "vary").every((value) =>
    value.split(",").every((name) => tellsApart(name.trim().toLowerCase())),
  );
}
const NO_STORE = /(?:^|[\s,;])no-store(?![\w-])/i;

/** The reply again, in the place of a call, which `plugin` saves the exchange. */
export function replay(exchange: Exchange, plugin: string, stored: StoredReply, ageMs: number): ReplyInit {
  const { headers, body, chunked, provider, tokens, nanoUsd } = stored;
  addSaving(exchange, { kind: "response-cache", plugin, tokens, nanoUsd });
  const age = String(Math.max(0, Math.floor(ageMs / 1_000)));
  return {
    status: 200,
    headers: [...headers, "Age", age, CACHE_HEADER, "HIT", PROVIDER_HEADER, provider],
    body,
    chunked,
  };
}

/**
 * A reply that is shared while it comes, for an exchange that follows: `plugin` saves it a call, whose cost is known at its
 * end, when the ledger looks. Cookies are the leader's. An error of TokenMan's own is passed on as it is.
 */
export function coalesced(
  exchange: Exchange,
  plugin: string,
  { reply, attempt }: Joined,
  pricing: Pricing | undefined,
): ReplyInit {
  if (attempt === undefined) return reply;
  const { provider } = attempt;
  addSaving(exchange, new SharedSaving(plugin, attempt, priceFormat(exchange, provider), pricing));
  const own: string[] = [];
  const { headers: shared = [] } = reply;
  for (let index = 0; index + 1 < shared.length; index += 2) {
    const name = shared[index]!.toLowerCase();
    if (!name.startsWith("set-cookie") && !name.startsWith("x-tokenman-"))
      own.push(shared[index]!, shared[index + 1]!);
  }
  own.push(CACHE_HEADER, "COALESCED", PROVIDER_HEADER, provider.name);
  return { ...reply, headers: own };
}

/** Input and output, whatever the provider's own cache held of it. */
export function tokensOf(usage: Usage | undefined): number {
  if (usage === undefined) return 0;
  const { inputTokens, cacheReadTokens, cacheWrite5mTokens, cacheWrite1hTokens, outputTokens } = usage;
  return inputTokens + cacheReadTokens + cacheWrite5mTokens + cacheWrite1hTokens + outputTokens;
}

class SharedSaving implements LedgerSaving {
  readonly kind = "response-cache";
  readonly plugin: string;
  readonly #attempt: Attempt;
  readonly #format: string;
  readonly #pricing: Pricing | undefined;

  constructor(plugin: string, attempt: Attempt, format: string, pricing: Pricing | undefined) {
    this.plugin = plugin;
    this.#attempt = attempt;
    this.#format = format;
    this.#pricing = pricing;
  }
  get tokens(): number {
    return tokensOf(this.#attempt.get(AttemptBill)?.usage ?? this.#attempt.usage);
  }
  /** By the bill, or where the one who made the call has not settled yet, by what the provider says of it. */
  get nanoUsd(): number | undefined {
    const { provider, candidate, usage, startedAt } = this.#attempt;
    const bill = this.#attempt.get(AttemptBill);
    const model = usage?.model ?? candidate.model;
    if (bill !== undefined || usage?.complete !== true || model === undefined) return bill?.cost?.total;
    const query = { model, provider: provider.name, format: this.#format, at: startedAt };
    const price = this.#pricing?.price(query, usage);
    return price?.priced === true ? Math.round(price.cost.total) : undefined;
  }
}

/**
 * What a request says, beside its body, that a store of replies has to know: what may change the answer, and what the
 * client asks of caches (RFC 9111 §5.2.1, and `X-Tokenman-Cache`).
 */
import { HeaderShapes } from "./header-shapes.ts";
import type { RawHeaders } from "./headers.ts";

export interface CacheRequest {
  /** Neither give a stored reply nor store this one. */
  readonly noStore: boolean;
  /** Give no stored reply, but store this one. */
  readonly refresh: boolean;
  /** Milliseconds that a stored reply may be old at the most, and must stay fresh at the least. */
  readonly maxAgeMs: number;
  readonly minFreshMs: number;
  /** Ask no provider: a stored reply, or none. */
  readonly onlyIfCached: boolean;
}

/**
 * Headers that may change the answer, beside those that begin with a vendor's name (version, beta, organisation,
 * project), and those that carry a credential, as the format says or their names read: a second one or a cookie, too, may
 * tell two users apart. The coding and language that the client accepts are among them, because a reply is stored as it came.
 */
const VARYING: ReadonlySet<string> = new Set([
  "accept",
  "accept-encoding",
  "accept-language",
  "authorization",
  "content-encoding",
  "content-type",
  "cookie",
  "origin",
  "referer",
  "x-origin",
  "x-tokenman-nocompress",
]);
const CONTROL: ReadonlySet<string> = new Set(["cache-control", "pragma", "x-tokenman-cache"]);
/** How the names of a vendor's own headers begin. */
const VENDORS = ["anthropic-", "openai-"];
/** How the names of headers read that carry a credential, of whatever gateway; a retry's mark is none. */
const SECRET = /auth|key|token|secret|passw|credential/;
const MARKS: ReadonlySet<string> = new Set(["idempotency-key", "x-idempotency-key"]);
/** Which headers of a format's requests count, by their names as they came. */
export class HeaderKinds {
  readonly #shapes: HeaderShapes;

  /** `credentials`: names, in lower case, of those that carry one. */
  constructor(credentials: readonly string[]) {
    this.#shapes = new HeaderShapes(
      (name) => varies(name) || CONTROL.has(name) || credentials.includes(name),
    );
  }
  /** Puts what may change the answer, and what is asked of caches, into `into`: names and values, as they came. */
  collect(headers: RawHeaders, into: string[]): void {
    this.#shapes.collect(headers, into);
  }
  /** What of it may change the answer. Credentials are among it, so it is only ever to be hashed. */
  varyingIn(collected: RawHeaders): string {
    let text = "";
    for (let index = 0; index + 1 < collected.length; index += 2) {
      const lower = collected[index]!.toLowerCase();
      if (!CONTROL.has(lower)) text += `${lower}:${collected[index + 1]}\n`;
    }
    return text;
  }
}

/** What the client asks of caches, by the headers that {@link HeaderKinds} collects. */
export function cacheRequestIn(headers: RawHeaders): CacheRequest {
  const directives: string[] = [];
  for (let index = 0; index + 1 < headers.length; index += 2) {
    const lower = headers[index]!.toLowerCase();
    if (CONTROL.has(lower)) directives.push(lower, headers[index + 1]!);
  }
  return directives.length === 0 ? NOTHING_ASKED : new Facts(directives);
}

function varies(name: string): boolean {
  if (VARYING.has(name) || VENDORS.some((vendor) => name.startsWith(vendor))) return true;
  return SECRET.test(name) && !MARKS.has(name);
}
/** The key of one of the known vendors, and what goes with the connection or a browser's question before the request. */
const ALIKE = /^(?:|host|x-api-key|api-key|access-control-request-(?:method|headers))$/;

/** Whether requests that differ in this header (in lower case) never share an answer, so that a reply may depend on it. */
export function tellsApart(name: string): boolean {
  return varies(name) || ALIKE.test(name);
}

class Facts implements CacheRequest {
  noStore = false;
  refresh = false;
  maxAgeMs = Number.POSITIVE_INFINITY;
  minFreshMs = 0;
  onlyIfCached = false;

  constructor(directives: readonly string[]) {
    const isControlled = directives.includes("cache-control");
    for (let index = 0; index < directives.length; index += 2) {
      // RFC 9111 §5.4: Pragma counts where there is no Cache-Control.
      if (directives[index] === "pragma" && isControlled) continue;
      for (const directive of directives[index + 1]!.split(",")) this.#take(directive.trim().toLowerCase());
    }
  }
  #take(directive: string): void {
    const [name, value = ""] = directive.split("=", 2);
    if (name === "no-store") this.noStore = true;
    else if (name === "no-cache" || name === "refresh") this.refresh = true;
    else if (name === "only-if-cached") this.onlyIfCached = true;
    else if (name === "max-age") this.maxAgeMs = Math.min(this.maxAgeMs, secondsIn(value) ?? 0);
    else if (name === "min-fresh") this.minFreshMs = Math.max(this.minFreshMs, secondsIn(value) ?? 0);
    if (this.maxAgeMs === 0) this.refresh = true;
  }
}

const NOTHING_ASKED: CacheRequest = Object.freeze(new Facts([]));

/** Milliseconds; undefined for what is no number of seconds. */
function secondsIn(text: string): number | undefined {
  const digits = /^"?(\d{1,10})"?$/.exec(text)?.[1];
  return digits === undefined ? undefined : Number(digits) * 1_000;
}

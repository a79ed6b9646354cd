/**
 * What a request says, beside its body, that a store of replies has to know: what may change the answer, and what the
 * client asks of caches (RFC 9111 §5.2.1, and `X-Tokenman-Cache`).
 */
import crypto from "node:crypto";
import type { Exchange } from "./exchange.ts";
import type { RawHeaders } from "./headers.ts";
import { requestBodies } from "./json-memo.ts";

export interface CacheRequest {
  /** The headers that may change the answer, as they came: credentials among them, so only ever to be hashed. */
  readonly variant: string;
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
 * project), and those that the format says carry a credential: a second one or a cookie, too, may tell two users apart.
 * The coding and language that the client accepts are among them, because a reply is stored as it came.
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
const NONE: readonly string[] = [];

/** Reads a request's headers, in one pass. */
export function cacheRequestOf({ format, request }: Pick<Exchange, "format" | "request">): CacheRequest {
  const credentials = format?.credentialHeaders ?? NONE;
  const headers: RawHeaders = request.headers;
  let variant = "";
  let directives: string[] | undefined;
  for (let index = 0; index + 1 < headers.length; index += 2) {
    const lower = headers[index]!.toLowerCase();
    if (varies(lower) || credentials.includes(lower)) variant += `${lower}:${headers[index + 1]}\n`;
    else if (CONTROL.has(lower)) {
      directives ??= [];
      directives.push(lower, headers[index + 1]!);
    }
  }
  return new Facts(variant, directives ?? []);
}

function varies(name: string): boolean {
  return VARYING.has(name) || name.startsWith("anthropic-") || name.startsWith("openai-");
}
/** The key of one of the known vendors, and what goes with the connection or a browser's question before the request. */
const ALIKE = /^(?:|host|x-api-key|api-key|access-control-request-(?:method|headers))$/;

/** Whether requests that differ in this header (in lower case) never share an answer, so that a reply may depend on it. */
export function tellsApart(name: string): boolean {
  return varies(name) || ALIKE.test(name);
}

class Facts implements CacheRequest {
  readonly variant: string;
  noStore = false;
  refresh = false;
  maxAgeMs = Number.POSITIVE_INFINITY;
  minFreshMs = 0;
  onlyIfCached = false;

  constructor(variant: string, directives: readonly string[]) {
    this.variant = variant;
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

/** Milliseconds; undefined for what is no number of seconds. */
function secondsIn(text: string): number | undefined {
  const digits = /^"?(\d{1,10})"?$/.exec(text)?.[1];
  return digits === undefined ? undefined : Number(digits) * 1_000;
}

/**
 * A key that two requests have in common only where the same answer may be given to both: one project, one credential, one
 * method, dialect, path and query, the same headers of interest and the same body. `scope` is whatever else must be equal.
 * The body's bytes count as they are; of a turn of a known conversation only what is new is hashed. 43 characters of base64url.
 */
export function answerKey(exchange: Exchange, variant: string, scope: string, body: Buffer): string {
  const { dialect, project, credentialHash, request } = exchange;
  const { method, target } = request;
  // Lengths, so that no part can pretend to be the beginning of the next one.
  const head = `${scope.length} ${project.length} ${target.length} ${variant.length}\n${scope}${project}${target}${variant}${credentialHash}\n${method} ${dialect?.name ?? ""}\n`;
  if (3 * (head.length + 5) + body.length > SCRATCH_BYTES)
    return crypto.hash("sha256", `${head}digest\n${requestBodies.digestOf(body)}`, "base64url");
  // Of a short body one call on bytes side by side costs less than two.
  scratch ??= Buffer.allocUnsafeSlow(SCRATCH_BYTES);
  const written = scratch.write(`${head}body\n`, 0, "utf8");
  body.copy(scratch, written);
  return crypto.hash("sha256", scratch.subarray(0, written + body.length), "base64url");
}

/** Nothing of it is needed after the call that fills it. */
let scratch: Buffer | undefined;
const SCRATCH_BYTES = 16_384;

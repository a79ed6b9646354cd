/**
 * Keys for whoever gives one request the answer of another. Two requests have a key in common only where the same answer
 * may be given to both: one project, one credential, one method, dialect, path and query, the same headers of interest, and
 * the same body, byte for byte.
 */
import crypto from "node:crypto";
import zlib from "node:zlib";
import { type CacheRequest, cacheRequestIn, HeaderKinds } from "./cache-request.ts";
import type { Dialect } from "./dialect.ts";
import type { Exchange } from "./exchange.ts";

/**
 * Bodies up to this are compared byte for byte; of longer ones a keyed digest is. To hash 2 KB costs more than to compare
 * them with those of the one or none that the checksum finds.
 */
export const EXACT_BYTES = 4_096;
const NONCE = Buffer.alloc(12);
/** Kinds of requests that are remembered: as many clients as are busy at the same time. */
const MAX_VARIANTS = 32;

/** All that tells a request's answer from others' but its body. */
export class Variant {
  /** What the client asks of caches. */
  readonly asked: CacheRequest;
  /** SHA-256 of all of it, as eight numbers. */
  readonly words: Int32Array;
  readonly #project: string;
  readonly #dialect: Dialect | undefined;
  readonly #method: string;
  readonly #target: string;
  readonly #headers: readonly string[];

  constructor(exchange: Exchange, headers: readonly string[], kinds: HeaderKinds, scope: string) {
    const { dialect, project, credentialHash, request } = exchange;
    const { method, target } = request;
    this.#project = project;
    this.#dialect = dialect;
    this.#method = method;
    this.#target = target;
    this.#headers = [...headers];
    this.asked = cacheRequestIn(headers);
    const said = kinds.varyingIn(headers);
    // Lengths, so that no part can pretend to be the beginning of the next one.
    const lengths = [scope, project, target, said].map((part) => part.length).join(" ");
    const text = `${lengths}\n${scope}${project}${target}${said}${credentialHash}\n${method} ${dialect?.name ?? ""}`;
    const digest = crypto.hash("sha256", text, "buffer");
    this.words = new Int32Array(8);
    Buffer.from(this.words.buffer).set(digest);
  }
  isOf({ project, dialect, request }: Exchange, headers: readonly string[]): boolean {
    const own = this.#headers;
    if (own.length !== headers.length || this.#target !== request.target || this.#project !== project)
      return false;
    if (this.#dialect !== dialect || this.#method !== request.method) return false;
    for (let index = 0; index < own.length; index++) if (own[index] !== headers[index]) return false;
    return true;
  }
}

export interface AnswerKeysOptions {
  /** Whatever else must be equal. Asked for at most once, with the first request. */
  readonly scope: () => string;
  /** Keys the digests of long bodies; asked for with the first one. See `HostInfo.keyFor`. */
  readonly secret: () => Buffer;
}

/** Makes the keys of requests, and remembers the latest kinds of them: of a request of a known kind no text is made. */
export class AnswerKeys {
  readonly #options: AnswerKeysOptions;
  /** Roughly in the order of their use. */
  readonly #known: Variant[] = [];
  readonly #kinds = new Map<Exchange["format"], HeaderKinds>();
  readonly #headers: string[] = [];
  #scope: string | undefined;
  #secret: Buffer | undefined;

  constructor(options: AnswerKeysOptions) {
    this.#options = options;
  }

  variantOf(exchange: Exchange): Variant {
    const kinds = this.#kindsOf(exchange);
    const headers = this.#headers;
    kinds.collect(exchange.request.headers, headers);
    const known = this.#known;
    for (let index = 0; index < known.length; index++) {
      const variant = known[index]!;
      if (!variant.isOf(exchange, headers)) continue;
      if (index > 0) {
        known[index] = known[index - 1]!;
        known[index - 1] = variant;
      }
      return variant;
    }
    this.#scope ??= this.#options.scope();
    const variant = new Variant(exchange, headers, kinds, this.#scope);
    if (known.length === MAX_VARIANTS) known.pop();
    known.unshift(variant);
    return variant;
  }
  /** The key of a request of this kind with this body. */
  keyOf(variant: Variant, body: Buffer): AnswerKey {
    if (body.length <= EXACT_BYTES)
      return new AnswerKey(variant.words, true, body, zlib.crc32(body, variant.words[0]! >>> 0) | 0);
    this.#secret ??= this.#options.secret();
    const tag = tagOf(body, this.#secret);
    return new AnswerKey(variant.words, false, tag, tag.readInt32LE() ^ variant.words[0]!);
  }

  #kindsOf({ format }: Exchange): HeaderKinds {
    let kinds = this.#kinds.get(format);
    if (kinds === undefined) {
      kinds = new HeaderKinds(format?.credentialHeaders ?? []);
      this.#kinds.set(format, kinds);
    }
    return kinds;
  }
}

/**
 * GMAC with one nonce for all: as a signature that would be broken, but no tag ever leaves this process, and then it is a
 * universal hash: whoever does not know the secret finds two bodies of n bytes with one tag with a chance of n/2^132
 * (NIST SP 800-38D, GHASH), whatever they try. It takes a tenth of SHA-256's time.
 */
function tagOf(body: Buffer, secret: Buffer): Buffer {
  const cipher = crypto.createCipheriv("aes-256-gcm", secret, NONCE);
  cipher.setAAD(body);
  cipher.final();
  return cipher.getAuthTag();
}

/** What a request must have in common with another one to be given its answer. */
export class AnswerKey {
  /** See {@link Variant.words}. */
  readonly words: Int32Array;
  /** Whether `needle` is the body itself. */
  readonly isExact: boolean;
  /** The body, or 16 bytes that nobody who does not know the secret can find for two bodies. */
  readonly needle: Buffer;
  /** To find candidates by: different keys may have the same one, and anybody can make such. */
  readonly hash: number;
  #id: string | undefined;

  constructor(words: Int32Array, isExact: boolean, needle: Buffer, hash: number) {
    this.words = words;
    this.isExact = isExact;
    this.needle = needle;
    this.hash = hash;
  }
  equals({ words, isExact, needle, hash }: AnswerKey): boolean {
    if (hash !== this.hash || isExact !== this.isExact) return false;
    if (words !== this.words) {
      for (let index = 0; index < words.length; index++) if (words[index] !== this.words[index]) return false;
    }
    return this.needle.equals(needle);
  }
  /** A digest of it that stays the same over restarts; 43 characters of base64url. */
  get id(): string {
    if (this.#id === undefined) {
      const { buffer, byteOffset, byteLength } = this.words;
      const words = Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength);
      this.#id = answerId(this.isExact, Buffer.concat([words, this.needle]));
    }
    return this.#id;
  }
}

/** As {@link AnswerKey.id}, of the bytes of its words and its needle. */
export function answerId(isExact: boolean, bytes: Buffer): string {
  return crypto.hash("sha256", isExact ? bytes : crypto.hash("sha256", bytes, "buffer"), "base64url");
}

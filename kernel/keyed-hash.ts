import crypto from "node:crypto";

/** Hashes are told cut to so many characters of base64url: 132 bits. */
const LENGTH = 22;
/** Secrets whose hashes are kept: a proxy has few clients. */
const MAX_SECRETS = 1_000;
/** Beginnings of conversations whose hashes are kept: long ones, and those that are found sooner than they are hashed. */
const MAX_BEGINNINGS = 32;
const MAX_SHORT = 256;
const MIN_LONG = 1_024;

/**
 * Hashes with a key of this data folder, so that they cannot be looked up elsewhere. The key is asked for at the first
 * hash, or by {@link prepare}.
 */
export class KeyedHash {
  readonly #readKey: () => Buffer;
  #key: Buffer | undefined;
  #hexKey = "";
  readonly #ofSecrets = new Map<string, string>();
  readonly #beginnings: { readonly secret: string; readonly text: string; readonly hash: string }[] = [];
  #next = 0;
  /** By their texts. */
  readonly #short = new Map<string, { readonly secret: string; readonly hash: string }>();

  constructor(readKey: () => Buffer) {
    this.#readKey = readKey;
  }

  /** Asks for the key now. Throws as `readKey` does. */
  prepare(): void {
    this.#known();
  }
  of(text: string): string {
    return crypto.createHmac("sha256", this.#known()).update(text).digest("base64url").slice(0, LENGTH);
  }
  /** The same, of one of the secrets that come with every request. */
  ofSecret(secret: string): string {
    let hash = this.#ofSecrets.get(secret);
    if (hash === undefined) {
      if (this.#ofSecrets.size === MAX_SECRETS) this.#ofSecrets.clear();
      hash = this.of(secret);
      this.#ofSecrets.set(secret, hash);
    }
    return hash;
  }
  /**
   * Of a conversation's beginning, under the secret that it came with: a keyed prefix costs half of an HMAC, and a part of
   * the hash, which is all that is told, cannot be continued.
   */
  ofBeginning(secret: string, text: string): string {
    const known = text.length < MIN_LONG ? this.#short.get(text) : this.#long(text, secret);
    if (known?.secret === secret) return known.hash;
    this.#known();
    const hash = crypto.hash("sha256", `${this.#hexKey}${secret}\n${text}`, "base64url").slice(0, LENGTH);
    if (text.length < MIN_LONG) {
      if (this.#short.size === MAX_SHORT) this.#short.clear();
      this.#short.set(text, { secret, hash });
    } else {
      this.#beginnings[this.#next] = { secret, text, hash };
      this.#next = (this.#next + 1) % MAX_BEGINNINGS;
    }
    return hash;
  }
  /** A dialect gives the same string for a conversation that goes on: then only that is compared. */
  #long(text: string, secret: string): { readonly secret: string; readonly hash: string } | undefined {
    for (const known of this.#beginnings) if (known.text === text && known.secret === secret) return known;
    return undefined;
  }
  /** 32 bytes derived of the key for a purpose (HKDF, RFC 5869). */
  keyFor(purpose: string): Buffer {
    return Buffer.from(crypto.hkdfSync("sha256", this.#known(), "", purpose, 32));
  }
  #known(): Buffer {
    if (this.#key === undefined) {
      this.#key = this.#readKey();
      this.#hexKey = this.#key.toString("hex");
    }
    return this.#key;
  }
}

import crypto from "node:crypto";

/** Hashes are told cut to so many characters of base64url: 132 bits. */
const LENGTH = 22;
/** Secrets whose hashes are kept: a proxy has few clients. */
const MAX_SECRETS = 1_000;

/** Hashes with a key of this data folder, so that they cannot be looked up elsewhere. The key is asked for at the first. */
export class KeyedHash {
  readonly #readKey: () => Buffer;
  #key: Buffer | undefined;
  #hexKey = "";
  readonly #ofSecrets = new Map<string, string>();

  constructor(readKey: () => Buffer) {
    this.#readKey = readKey;
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
   * Of a text that is new with nearly every request: a keyed prefix costs half of an HMAC, and a part of the hash, which is
   * all that is told, cannot be continued.
   */
  ofBeginning(text: string): string {
    this.#known();
    return crypto.hash("sha256", this.#hexKey + text, "base64url").slice(0, LENGTH);
  }
  #known(): Buffer {
    if (this.#key === undefined) {
      this.#key = this.#readKey();
      this.#hexKey = this.#key.toString("hex");
    }
    return this.#key;
  }
}

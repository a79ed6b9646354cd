import { type StoredReply, storeNow } from "@tokenman/plugin-sdk";

const MAX_ANSWERS = 500;
const MAX_BYTES = 8 * 1024 * 1024;

/** What polls were answered lately, in memory only. The oldest goes first. */
export class Answers {
  readonly #answers = new Map<string, StoredReply>();
  #bytes = 0;

  /** The answer, where it is at most `windowMs` old. */
  find(key: string, windowMs: number): StoredReply | undefined {
    const stored = this.#answers.get(key);
    return stored !== undefined && storeNow() - stored.at <= windowMs ? stored : undefined;
  }
  put(key: string, stored: StoredReply): void {
    this.#drop(key);
    if (stored.body.length > MAX_BYTES) return;
    // Memory of its own: a part of a pool that is kept keeps the whole pool.
    const body = Buffer.allocUnsafeSlow(stored.body.length);
    stored.body.copy(body);
    this.#answers.set(key, { ...stored, body });
    this.#bytes += stored.body.length;
    for (const oldest of this.#answers.keys()) {
      if (this.#answers.size <= MAX_ANSWERS && this.#bytes <= MAX_BYTES) return;
      this.#drop(oldest);
    }
  }
  #drop(key: string): void {
    const stored = this.#answers.get(key);
    if (stored === undefined) return;
    this.#answers.delete(key);
    this.#bytes -= stored.body.length;
  }
}

import type { StoredReply } from "@tokenman/plugin-sdk";

/** Requests that are remembered; a power of two. */
const PLACES = 64;
/** Of their bodies, in all. Larger ones than a quarter of that are hashed every time. */
const MAX_BYTES = 8 * 1024 * 1024;
const MAX_BODY_BYTES = MAX_BYTES / 4;
/** Bytes of a body that decide on its place. */
const SAMPLES = 16;

/** A request that was answered, as it came, and its stored reply. */
interface Answered {
  readonly words: Int32Array;
  readonly body: Buffer;
  readonly stored: StoredReply;
  /** Where the reply is in the memory tier. */
  readonly place: number;
}

/**
 * Requests that were answered lately, each in the one place that a few of its bytes decide on. A request that comes again
 * is compared with the one in its place, byte for byte, and not hashed: measured 0.1 us in the place of 2.4 for 8 KB, and 8
 * in the place of 19 for 520 KB.
 */
export class Recent {
  readonly #answered: (Answered | undefined)[] = new Array<Answered | undefined>(PLACES).fill(undefined);
  #bytes = 0;

  /** `words` and `body`: see `AnswerKey.words`, and the body itself. */
  find(words: Int32Array, body: Buffer): Answered | undefined {
    const found = this.#answered[placeOf(words, body)];
    if (found === undefined || found.body.length !== body.length || !isSame(words, found.words))
      return undefined;
    return found.body.equals(body) ? found : undefined;
  }
  /** The body must stay as it is. */
  put(words: Int32Array, body: Buffer, stored: StoredReply, place: number): void {
    if (body.length > MAX_BODY_BYTES) return;
    if (this.#bytes + body.length > MAX_BYTES) this.clear();
    const at = placeOf(words, body);
    this.#bytes += body.length - (this.#answered[at]?.body.length ?? 0);
    this.#answered[at] = { words, body: withoutMore(body), stored, place };
  }
  clear(): void {
    this.#answered.fill(undefined);
    this.#bytes = 0;
  }
}

/** A part of larger memory would keep all of that. */
function withoutMore(body: Buffer): Buffer {
  if (body.buffer.byteLength === body.length) return body;
  const own = Buffer.allocUnsafeSlow(body.length);
  body.copy(own);
  return own;
}
function placeOf(words: Int32Array, body: Buffer): number {
  const { length } = body;
  const step = Math.ceil(length / SAMPLES);
  let sum = words[0]! ^ length;
  // From the end on: that is where requests of one conversation differ.
  for (let index = length - 1; index >= 0; index -= step) sum = (Math.imul(sum, 31) + body[index]!) | 0;
  return (sum ^ (sum >>> 6) ^ (sum >>> 12)) & (PLACES - 1);
}
function isSame(words: Int32Array, others: Int32Array): boolean {
  if (words === others) return true;
  for (let index = 0; index < words.length; index++) if (words[index] !== others[index]) return false;
  return true;
}

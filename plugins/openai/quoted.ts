const QUOTE = 0x22;

/**
 * Up to here a loop over the bytes is faster than the call out of JavaScript that a native search is: measured with chunks
 * of a chat, 0.10 us in the place of 0.18 at 200 bytes, and as much at 400.
 */
const SHORT_BYTES = 384;

/** A word with its quotes, to look for in JSON: in texts quotes are escaped, so that it is found as a name or value only. */
export function quoted(word: string): Buffer {
  return Buffer.from(`"${word}"`);
}

/** Where the quoted word stands first, from `from` on; -1 where it does not. */
export function quotedAt(raw: Buffer, word: Buffer, from = 0): number {
  if (raw.length > SHORT_BYTES) return raw.indexOf(word, from);
  const second = word[1];
  const last = raw.length - word.length;
  next: for (let at = from; at <= last; at++) {
    if (raw[at] !== QUOTE || raw[at + 1] !== second) continue;
    for (let index = 2; index < word.length; index++) if (raw[at + index] !== word[index]) continue next;
    return at;
  }
  return -1;
}

import crypto from "node:crypto";

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPENERS = ['"{', '"['];
/** What calls of functions are given, as JSON in a string: the most frequent of all, and never rewritten. */
const ARGUMENTS = Buffer.from('"arguments":');

/**
 * The strings of a JSON document that begin with a bracket, as [start, end) of their literals: found without reading the
 * rest, which is what makes it cheap to have nothing to do. Of a document that is no JSON, whatever looks like it.
 */
export function* bracketStrings(body: Buffer): Generator<readonly [start: number, end: number]> {
  for (const opener of OPENERS) {
    for (let at = body.indexOf(opener); at >= 0; at = body.indexOf(opener, at + 2)) {
      // Within a string quotes are escaped.
      if (body[at - 1] === BACKSLASH || isArgument(body, at)) continue;
      const end = endOf(body, at + 1);
      if (end < 0) return;
      yield [at, end];
    }
  }
}

/** The same as a segment's hash. */
export function hashOf(body: Buffer, start: number, end: number): string {
  return crypto.hash("sha256", body.subarray(start, end), "base64url");
}

function isArgument(body: Buffer, at: number): boolean {
  let before = at;
  while (before > 0 && body[before - 1] === 0x20) before--;
  const from = before - ARGUMENTS.length;
  return from >= 0 && body.compare(ARGUMENTS, 0, ARGUMENTS.length, from, before) === 0;
}

/** Behind the closing quote of a literal whose text begins at `from`; -1 where it has none. In JSON text quotes are dense. */
function endOf(body: Buffer, from: number): number {
  for (let at = from; at < body.length; at++) {
    const byte = body[at];
    if (byte === QUOTE) return at + 1;
    if (byte === BACKSLASH) at++;
  }
  return -1;
}

/**
 * JSON source text in a Buffer, scanned by offset (RFC 8259). The scan checks structure, literals and numbers; what is
 * inside string literals is skipped, and checked only when a string is decoded.
 */
const QUOTE = 0x22;
export const COMMA = 0x2c;
const COLON = 0x3a;
export const BACKSLASH = 0x5c;
export const OPEN_ARRAY = 0x5b;
export const CLOSE_ARRAY = 0x5d;
export const OPEN_OBJECT = 0x7b;
export const CLOSE_OBJECT = 0x7d;

/** Not JSON, at byte `offset` of the buffer. */
export class JsonSyntaxError extends Error {
  override readonly name = "JsonSyntaxError";
  readonly offset: number;

  constructor(problem: string, offset: number) {
    super(`${problem} at byte ${offset}`);
    this.offset = offset;
  }
}

/** The error for what stands at `pos` where `expected` should. */
export function unexpected(buf: Buffer, pos: number, expected: string): JsonSyntaxError {
  const byte = buf[pos];
  let found = "end of input";
  if (byte !== undefined) {
    found = byte > 0x20 && byte < 0x7f ? `'${String.fromCharCode(byte)}'` : `byte 0x${byte.toString(16)}`;
  }
  return new JsonSyntaxError(`JSON: expected ${expected}, found ${found}`, Math.min(pos, buf.length));
}

/**
 * The structure of a scanned value: a list of word pairs in document order, so that children are found without
 * scanning again. A scalar or key is (start, end). A container is (start, index of its closing pair), then its children,
 * then the closing pair (end, 0). 8 bytes a scalar, 16 a container.
 */
export class JsonTape {
  words: Int32Array;
  length = 0;

  constructor(expectedPairs: number) {
    this.words = new Int32Array(2 * Math.max(4, expectedPairs));
  }

  /** Appends a pair and returns its index. */
  push(first: number, second: number): number {
    const index = this.length;
    if (index + 2 > this.words.length) {
      const grown = new Int32Array(2 * this.words.length);
      grown.set(this.words);
      this.words = grown;
    }
    this.words[index] = first;
    this.words[index + 1] = second;
    this.length = index + 2;
    return index;
  }
}

/** The offset of the first byte at or after `pos` that is not JSON white space. */
export function skipSpace(buf: Buffer, pos: number): number {
  let at = pos;
  while (at < buf.length) {
    const byte = buf[at]!;
    if (byte > 0x20 || (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09)) break;
    at++;
  }
  return at;
}

/**
 * Keys and most values are shorter than this, and quotes inside code text stand closer than this. A native search has a
 * cost per call of about so many bytes' worth, so it takes over only behind them. Measured on 520 KB agent bodies: 16, 32
 * and 64 within 10 % on a real one, 64 a quarter faster where every 20th byte is a quote, none at all 40 % slower.
 */
const SHORT_STRING_BYTES = 64;

/** The offset behind the closing quote of the string whose text begins at `textStart`. */
export function stringEnd(buf: Buffer, textStart: number): number {
  let pos = textStart;
  for (;;) {
    const stop = Math.min(pos + SHORT_STRING_BYTES, buf.length);
    let quote = pos;
    while (quote < stop && buf[quote] !== QUOTE) quote++;
    if (quote === stop) quote = buf.indexOf(QUOTE, stop);
    if (quote < 0)
      throw unexpected(buf, buf.length, `the end of the string that begins at byte ${textStart - 1}`);
    // `pos` itself is not escaped, so the quote is escaped exactly where an odd number of backslashes precedes it.
    let before = quote - 1;
    while (before >= pos && buf[before] === BACKSLASH) before--;
    if (((quote - before) & 1) === 1) return quote + 1;
    pos = quote + 1;
  }
}

/**
 * The string whose literal, quotes included, is [start, end). Bytes that are not UTF-8 become U+FFFD. Throws
 * JsonSyntaxError on a bad escape. Unescaped control characters are let through unless the literal has escapes as well.
 */
export function decodeString(buf: Buffer, start: number, end: number): string {
  const literal = buf.toString("utf8", start, end);
  if (!literal.includes("\\")) return literal.slice(1, -1);
  return parseText(literal, start) as string;
}

/**
 * JSON.parse of source text that stands at byte `start`. JSON.parse's own message quotes the text, which may be a prompt or
 * a secret on its way to a log, so the error carries neither it nor a cause.
 */
export function parseText(text: string, start: number): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new JsonSyntaxError("JSON: found a value that does not parse", start);
  }
}

function literalEnd(buf: Buffer, pos: number, word: string): number {
  for (let i = 1; i < word.length; i++) {
    if (buf[pos + i] !== word.charCodeAt(i)) throw unexpected(buf, pos + i, `'${word}'`);
  }
  return pos + word.length;
}

function digitsEnd(buf: Buffer, pos: number): number {
  let at = pos;
  while (at < buf.length && buf[at]! >= 0x30 && buf[at]! <= 0x39) at++;
  if (at === pos) throw unexpected(buf, pos, "a digit");
  return at;
}

function numberEnd(buf: Buffer, start: number): number {
  let pos = buf[start] === 0x2d ? start + 1 : start;
  pos = buf[pos] === 0x30 ? pos + 1 : digitsEnd(buf, pos);
  if (buf[pos] === 0x2e) pos = digitsEnd(buf, pos + 1);
  if (buf[pos] === 0x65 || buf[pos] === 0x45) {
    const sign = buf[pos + 1];
    pos = digitsEnd(buf, sign === 0x2b || sign === 0x2d ? pos + 2 : pos + 1);
  }
  return pos;
}

/** Reads `"key" :`, puts the key on `tape`, and returns the offset behind the colon. Throws JsonSyntaxError. */
export function memberStart(buf: Buffer, from: number, tape: JsonTape | null): number {
  const start = skipSpace(buf, from);
  if (buf[start] !== QUOTE) throw unexpected(buf, start, "a key in quotes");
  const end = stringEnd(buf, start + 1);
  tape?.push(start, end);
  const colon = skipSpace(buf, end);
  if (buf[colon] !== COLON) throw unexpected(buf, colon, "':'");
  return colon + 1;
}

const shallowStack = new Int32Array(256);

/**
 * Scans one value, white space before it included, and returns the offset behind it; records its structure on `tape`
 * where one is given. Containers are kept on a heap stack, so nesting is bounded by memory, not by the call stack.
 * Throws JsonSyntaxError.
 */
export function scanValue(buf: Buffer, from: number, tape: JsonTape | null): number {
  // An open container: the index of its tape pair, doubled, plus 1 for an object.
  let stack = shallowStack;
  let depth = 0;
  let pos = from;
  for (;;) {
    pos = skipSpace(buf, pos);
    const byte = pos < buf.length ? buf[pos]! : -1;
    if (byte === QUOTE) {
      const end = stringEnd(buf, pos + 1);
      tape?.push(pos, end);
      pos = end;
    } else if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) {
      const isObject = byte === OPEN_OBJECT;
      if (depth === stack.length) {
        const grown = new Int32Array(2 * depth);
        grown.set(stack);
        stack = grown;
      }
      stack[depth++] = (tape === null ? 0 : 2 * tape.push(pos, 0)) + (isObject ? 1 : 0);
      pos = skipSpace(buf, pos + 1);
      if (buf[pos] !== (isObject ? CLOSE_OBJECT : CLOSE_ARRAY)) {
        if (isObject) pos = memberStart(buf, pos, tape);
        continue;
      }
    } else {
      let end: number;
      if (byte === 0x2d || (byte >= 0x30 && byte <= 0x39)) end = numberEnd(buf, pos);
      else if (byte === 0x74) end = literalEnd(buf, pos, "true");
      else if (byte === 0x66) end = literalEnd(buf, pos, "false");
      else if (byte === 0x6e) end = literalEnd(buf, pos, "null");
      else throw unexpected(buf, pos, "a value");
      tape?.push(pos, end);
      pos = end;
    }
    // Behind a value: leave the containers that end here, up to the next value of one that goes on.
    for (;;) {
      if (depth === 0) return pos;
      pos = skipSpace(buf, pos);
      const top = stack[depth - 1]!;
      const isObject = (top & 1) === 1;
      const next = pos < buf.length ? buf[pos]! : -1;
      if (next === COMMA) {
        pos = isObject ? memberStart(buf, pos + 1, tape) : pos + 1;
        break;
      }
      if (next !== (isObject ? CLOSE_OBJECT : CLOSE_ARRAY)) {
        throw unexpected(buf, pos, isObject ? "',' or '}'" : "',' or ']'");
      }
      pos++;
      depth--;
      if (tape !== null) {
        const closing = tape.push(pos, 0); // first, for it may replace `words`
        tape.words[(top >> 1) + 1] = closing;
      }
    }
  }
}

/** Where the document begins: behind a UTF-8 byte order mark and white space. */
export function documentStart(buf: Buffer): number {
  const hasMark = buf[0] === 0xef && buf[1] === 0xbb && buf[2] === 0xbf;
  return skipSpace(buf, hasMark ? 3 : 0);
}

/** Throws JsonSyntaxError where anything but white space follows the document's value. */
export function expectDocumentEnd(buf: Buffer, pos: number): void {
  const at = skipSpace(buf, pos);
  if (at < buf.length) throw unexpected(buf, at, "the end of the document");
}

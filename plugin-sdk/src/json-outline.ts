/**
 * The outline of a JSON object: where its members stand, and the elements of those that are arrays. An agent sends its
 * whole conversation again with every turn, so a document is outlined from one that was before it, and scanned only where
 * it differs.
 */
import {
  CLOSE_ARRAY,
  CLOSE_OBJECT,
  COMMA,
  expectDocumentEnd,
  JsonTape,
  memberStart,
  OPEN_ARRAY,
  OPEN_OBJECT,
  scanValue,
  skipSpace,
  unexpected,
} from "./json-text.ts";

/** Flat lists of offsets: they are cut and copied as a whole. */
export interface Outline {
  /**
   * For each member, duplicates included: its key's start and end, quotes included, its value's start and end, the index
   * of its first element in `elements`, and how many numbers are there (-1: its elements are not listed).
   */
  readonly members: number[];
  /** For each listed element its start and end. */
  readonly elements: number[];
}

export const MEMBER = 6;
const ELEMENT = 2;
const UNLISTED = -1;

/** Arrays of more elements than this are not listed: they are lists of numbers, not conversations. */
const MAX_ELEMENTS = 4_096;
/** … and of as many objects, which are conversations: bounded by what a list of them takes in memory. */
const MAX_OBJECTS = 65_536;

/** A document that was outlined before: the first `length` of `bytes`. */
export interface Outlined {
  readonly bytes: Buffer;
  readonly length: number;
  readonly outline: Outline;
}

/** An outline, and how many bytes at its document's end were taken over. */
export interface Outlining {
  readonly outline: Outline;
  readonly suffix: number;
}

const key = new JsonTape(1);

/**
 * The outline of the object whose `{` is at `open`, the document's only value. The first `shared` bytes are those of
 * `known`, where one is given. Throws JsonSyntaxError as `parseIndex` does.
 */
export function outlineOf(buf: Buffer, open: number, known?: Outlined, shared = 0): Outlining {
  const scan = new Scan(buf);
  let pos = known === undefined ? -1 : scan.resume(known.outline, shared);
  const { outline } = scan;
  if (pos < 0) {
    pos = skipSpace(buf, open + 1);
    if (buf[pos] === CLOSE_OBJECT) {
      expectDocumentEnd(buf, pos + 1);
      return { outline, suffix: 0 };
    }
  }
  for (;;) {
    const valueEnd = scan.member(pos);
    if (known !== undefined && takeTail(buf, valueEnd, known, outline))
      return { outline, suffix: buf.length - valueEnd };
    pos = skipSpace(buf, valueEnd);
    if (buf[pos] === CLOSE_OBJECT) break;
    if (buf[pos] !== COMMA) throw unexpected(buf, pos, "',' or '}'");
    pos++;
  }
  expectDocumentEnd(buf, pos + 1);
  return { outline, suffix: 0 };
}

class Scan {
  outline: Outline = { members: [], elements: [] };
  readonly #buf: Buffer;
  /** Of the member whose array the scan is in; -1 where it is in none. */
  #valueStart = -1;
  #keyStart = 0;
  #keyEnd = 0;
  #firstElement = 0;
  /** As many numbers of the array that the scan is in, or was last in, are listed. */
  #most = 0;

  constructor(buf: Buffer) {
    this.#buf = buf;
  }

  /**
   * Takes over what is complete before the last place within the first `shared` bytes where a member or a listed element
   * begins. Returns that place, or -1.
   */
  resume({ members, elements }: Outline, shared: number): number {
    let member = members.length - MEMBER;
    while (member >= 0 && members[member]! > shared) member -= MEMBER;
    if (member < 0) return -1;
    const first = members[member + 4]!;
    const element = first + lastStart(elements, first, Math.max(0, members[member + 5]!), shared);
    const isInArray = element >= first;
    // Where the first one stood, there may be none now.
    if (member === 0 && !isInArray) return -1;
    this.outline = {
      members: members.slice(0, member),
      elements: elements.slice(0, isInArray ? element : first),
    };
    if (!isInArray) return members[member]!;
    this.#keyStart = members[member]!;
    this.#keyEnd = members[member + 1]!;
    this.#valueStart = members[member + 2]!;
    this.#firstElement = first;
    return elements[element]!;
  }

  /** Scans the member that begins at `from`, or the rest of one from its element there; returns its value's end. */
  member(from: number): number {
    const buf = this.#buf;
    const { members, elements } = this.outline;
    let valueStart = this.#valueStart;
    let pos = from;
    if (valueStart < 0) {
      key.length = 0;
      valueStart = skipSpace(buf, memberStart(buf, pos, key));
      this.#keyStart = key.words[0]!;
      this.#keyEnd = key.words[1]!;
      this.#firstElement = elements.length;
      if (buf[valueStart] !== OPEN_ARRAY) {
        const end = scanValue(buf, valueStart, null);
        members.push(this.#keyStart, this.#keyEnd, valueStart, end, elements.length, UNLISTED);
        return end;
      }
      pos = valueStart + 1;
    }
    this.#valueStart = -1;
    const first = this.#firstElement;
    pos = skipSpace(buf, pos);
    const isEmpty = buf[pos] === CLOSE_ARRAY && elements.length === first;
    const end = isEmpty ? pos + 1 : this.#elements(pos);
    let count = elements.length - first;
    if (count > this.#most) {
      elements.length = first;
      count = UNLISTED;
    }
    members.push(this.#keyStart, this.#keyEnd, valueStart, end, first, count);
    return end;
  }

  /** Scans elements up to the end of their array, and returns it. */
  #elements(from: number): number {
    const buf = this.#buf;
    const { elements } = this.outline;
    const opening = elements[this.#firstElement] ?? skipSpace(buf, from);
    this.#most = ELEMENT * (buf[opening] === OPEN_OBJECT ? MAX_OBJECTS : MAX_ELEMENTS);
    const most = this.#firstElement + this.#most;
    for (let pos = from; ; pos++) {
      const start = skipSpace(buf, pos);
      const end = scanValue(buf, start, null);
      if (elements.length <= most) elements.push(start, end);
      pos = skipSpace(buf, end);
      if (buf[pos] === CLOSE_ARRAY) return pos + 1;
      if (buf[pos] !== COMMA) throw unexpected(buf, pos, "',' or ']'");
    }
  }
}

/** The offset, from `first` on, of the last of `count` numbers' elements that starts at `limit` or before; negative for none. */
function lastStart(elements: readonly number[], first: number, count: number, limit: number): number {
  let low = 0;
  let high = count / ELEMENT;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (elements[first + ELEMENT * middle]! <= limit) low = middle + 1;
    else high = middle;
  }
  return ELEMENT * (low - 1);
}

/**
 * Where what follows `pos`, the end of a member, is byte for byte what follows a member of the known document, takes the
 * rest over from there: some clients write `system` and `tools` behind `messages`.
 */
function takeTail(buf: Buffer, pos: number, known: Outlined, outline: Outline): boolean {
  const shift = buf.length - known.length;
  const from = pos - shift;
  const { members, elements } = known.outline;
  let next = 0;
  while (next < members.length && members[next + 3]! < from) next += MEMBER;
  if (members[next + 3] !== from) return false;
  if (buf.compare(known.bytes, from, known.length, pos, buf.length) !== 0) return false;
  for (let member = next + MEMBER; member < members.length; member += MEMBER) {
    const first = members[member + 4]!;
    const count = members[member + 5]!;
    for (let at = 0; at < 4; at++) outline.members.push(members[member + at]! + shift);
    outline.members.push(outline.elements.length, count);
    for (let at = first; at < first + count; at++) outline.elements.push(elements[at]! + shift);
  }
  return true;
}

/**
 * The outline of a JSON object: where its members stand. An agent sends its whole conversation again with every turn, so a
 * memo keeps the outlines of the last few documents, and a new turn is scanned only where its bytes differ from theirs.
 */
import {
  CLOSE_ARRAY,
  CLOSE_OBJECT,
  COMMA,
  expectDocumentEnd,
  JsonTape,
  memberStart,
  OPEN_ARRAY,
  scanValue,
  skipSpace,
  unexpected,
} from "./json-text.ts";

/** Flat lists of offsets: they are cut and copied as a whole. */
export interface Outline {
  /** For each member, duplicates included: its key's start and end, quotes included, and its value's start and end. */
  readonly members: number[];
  /**
   * Where a scan can be taken up again, in ascending order: for each mark its offset, the numbers of the members that
   * are complete before it, and key start, key end and value start of the member whose array it is in (-1 for none).
   */
  readonly marks: number[];
}

const MEMBER = 4;
const MARK = 5;

/** Marks closer than this to the one before are left out: scanning so much again costs next to nothing. */
const MARK_DISTANCE_BYTES = 512;

/** Two documents are told apart to within so many bytes. */
const GRAIN_BYTES = 512;
const STRIDE_BYTES = 65_536;

/**
 * The outline of the object whose `{` is at `open`, the document's only value. Throws JsonSyntaxError as `parseIndex`
 * does.
 */
export function outlineOf(buf: Buffer, open: number): Outline {
  return scan(buf, open, undefined, 0);
}

/** A document that was scanned before: the first `length` of `bytes`, which are a copy. */
interface Known {
  bytes: Buffer;
  length: number;
  outline: Outline;
}

/** Bounds of an {@link OutlineMemo}. */
export interface OutlineMemoBounds {
  /** Documents that are kept. */
  readonly documents: number;
  /** Bytes of all of them. */
  readonly bytes: number;
  /** Smaller documents are scanned as they are. */
  readonly minBytes: number;
}

const BOUNDS: OutlineMemoBounds = { documents: 8, bytes: 16_777_216, minBytes: 8_192 };

/** Remembers the outlines of the last documents it was asked about. What it answers is what `outlineOf` does. */
export class OutlineMemo {
  /** The one used last comes first. */
  readonly #known: Known[] = [];
  readonly #bounds: OutlineMemoBounds;

  constructor(bounds: OutlineMemoBounds = BOUNDS) {
    this.#bounds = bounds;
  }

  /** See {@link outlineOf}. */
  outlineOf(buf: Buffer, open: number): Outline {
    // A document alone may take half of the bytes, so that a second one has room.
    if (buf.length < this.#bounds.minBytes || 2 * buf.length > this.#bounds.bytes)
      return outlineOf(buf, open);
    let nearest: Known | undefined;
    let shared = 0;
    for (const known of this.#known) {
      const prefix = sharedPrefix(buf, known);
      if (prefix <= shared) continue;
      nearest = known;
      shared = prefix;
    }
    const outline = scan(buf, open, nearest, shared);
    // The next turn of a conversation takes its place; another one that begins alike gets its own.
    if (nearest !== undefined && 2 * shared >= nearest.length) this.#replace(nearest, buf, shared, outline);
    else this.#add(buf, outline);
    return outline;
  }

  #replace(known: Known, buf: Buffer, shared: number, outline: Outline): void {
    if (known.bytes.length < buf.length) {
      const grown = Buffer.allocUnsafeSlow(buf.length + (buf.length >> 2));
      known.bytes.copy(grown, 0, 0, shared);
      known.bytes = grown;
    }
    buf.copy(known.bytes, shared, shared);
    known.length = buf.length;
    known.outline = outline;
    const at = this.#known.indexOf(known);
    if (at > 0) {
      this.#known.splice(at, 1);
      this.#known.unshift(known);
    }
    this.#trim();
  }

  #add(buf: Buffer, outline: Outline): void {
    const bytes = Buffer.allocUnsafeSlow(buf.length + (buf.length >> 2));
    buf.copy(bytes);
    this.#known.unshift({ bytes, length: buf.length, outline });
    this.#trim();
  }

  #trim(): void {
    let bytes = 0;
    let kept = 0;
    for (const known of this.#known) {
      bytes += known.bytes.length;
      if (kept > 0 && (kept === this.#bounds.documents || bytes > this.#bounds.bytes)) break;
      kept++;
    }
    this.#known.length = kept;
  }
}

/** How many first bytes of `buf` are surely those of the known document; up to a grain fewer than there are. */
function sharedPrefix(buf: Buffer, known: Known): number {
  const limit = Math.min(buf.length, known.length);
  let at = 0;
  let stride = GRAIN_BYTES;
  while (at < limit) {
    const end = Math.min(at + stride, limit);
    if (buf.compare(known.bytes, at, end, at, end) === 0) {
      // The first grain alone tells most documents apart.
      if (at === 0) stride = STRIDE_BYTES;
      at = end;
    } else if (stride > GRAIN_BYTES) stride >>= 1;
    else break;
  }
  return at;
}

/** The key that was read last. One for all: nothing interrupts a scan. */
const key = new JsonTape(1);

/** Scans the document, of which the first `shared` bytes are those of `known`. */
function scan(buf: Buffer, open: number, known: Known | undefined, shared: number): Outline {
  const mark = known === undefined ? -1 : lastMark(known.outline.marks, shared);
  let outline: Outline = { members: [], marks: [] };
  let keyStart = 0;
  let keyEnd = 0;
  let valueStart = -1;
  let pos: number;
  if (known === undefined || mark < 0) {
    pos = skipSpace(buf, open + 1);
    if (buf[pos] === CLOSE_OBJECT) {
      expectDocumentEnd(buf, pos + 1);
      return outline;
    }
  } else {
    const { members, marks } = known.outline;
    outline = { members: members.slice(0, MEMBER * marks[mark + 1]!), marks: marks.slice(0, mark) };
    pos = marks[mark]!;
    keyStart = marks[mark + 2]!;
    keyEnd = marks[mark + 3]!;
    valueStart = marks[mark + 4]!;
  }
  for (;;) {
    let valueEnd = -1;
    if (valueStart < 0) {
      addMark(outline, pos, 0, 0, -1);
      key.length = 0;
      valueStart = skipSpace(buf, memberStart(buf, pos, key));
      keyStart = key.words[0]!;
      keyEnd = key.words[1]!;
      if (buf[valueStart] !== OPEN_ARRAY) valueEnd = scanValue(buf, valueStart, null);
      else {
        pos = skipSpace(buf, valueStart + 1);
        if (buf[pos] === CLOSE_ARRAY) valueEnd = pos + 1;
      }
    }
    while (valueEnd < 0) {
      addMark(outline, pos, keyStart, keyEnd, valueStart);
      pos = skipSpace(buf, scanValue(buf, pos, null));
      if (buf[pos] === CLOSE_ARRAY) valueEnd = pos + 1;
      else if (buf[pos] === COMMA) pos++;
      else throw unexpected(buf, pos, "',' or ']'");
    }
    outline.members.push(keyStart, keyEnd, valueStart, valueEnd);
    if (known !== undefined && takeTail(buf, valueEnd, known, outline)) return outline;
    valueStart = -1;
    pos = skipSpace(buf, valueEnd);
    if (buf[pos] === CLOSE_OBJECT) break;
    if (buf[pos] !== COMMA) throw unexpected(buf, pos, "',' or '}'");
    pos++;
  }
  expectDocumentEnd(buf, pos + 1);
  return outline;
}

function addMark(outline: Outline, pos: number, keyStart: number, keyEnd: number, valueStart: number): void {
  const { marks, members } = outline;
  if (marks.length > 0 && pos - marks[marks.length - MARK]! < MARK_DISTANCE_BYTES) return;
  marks.push(pos, members.length / MEMBER, keyStart, keyEnd, valueStart);
}

/** The index of the last mark whose offset is at most `offset`, or -1. */
function lastMark(marks: readonly number[], offset: number): number {
  let low = 0;
  let high = marks.length / MARK;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (marks[MARK * middle]! <= offset) low = middle + 1;
    else high = middle;
  }
  return low === 0 ? -1 : MARK * (low - 1);
}

/**
 * Where what follows `pos`, the end of a member, is byte for byte what follows a member of the known document, takes the
 * rest over from there (clients that write `system` and `tools` behind `messages`).
 */
function takeTail(buf: Buffer, pos: number, known: Known, outline: Outline): boolean {
  const shift = buf.length - known.length;
  const from = pos - shift;
  const { members, marks } = known.outline;
  let next = 0;
  while (next < members.length && members[next + 3]! < from) next += MEMBER;
  if (members[next + 3] !== from) return false;
  if (buf.compare(known.bytes, from, known.length, pos, buf.length) !== 0) return false;
  next += MEMBER;
  const added = outline.members.length / MEMBER - next / MEMBER;
  for (let index = next; index < members.length; index++) outline.members.push(members[index]! + shift);
  let mark = Math.max(0, lastMark(marks, from));
  if (marks[mark]! < from) mark += MARK;
  for (; mark < marks.length; mark += MARK) {
    const inArray = marks[mark + 4]! >= 0;
    const keyShift = inArray ? shift : 0;
    outline.marks.push(
      marks[mark]! + shift,
      marks[mark + 1]! + added,
      marks[mark + 2]! + keyShift,
      marks[mark + 3]! + keyShift,
      marks[mark + 4]! + keyShift,
    );
  }
  return true;
}

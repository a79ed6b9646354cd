import { type Outline, type Outlined, outlineOf } from "./json-outline.ts";
import { documentStart, JsonSyntaxError, OPEN_OBJECT } from "./json-text.ts";

/** Two documents are told apart to within so many bytes. */
const GRAIN_BYTES = 512;
const STRIDE_BYTES = 65_536;

/** As many texts are remembered not to be in a document. */
const MAX_SEARCHED = 8;

/** Bounds of a {@link DocumentMemo}. */
export interface DocumentMemoBounds {
  /** Documents that are kept. */
  readonly documents: number;
  /** Bytes of all of them. */
  readonly bytes: number;
  /** Smaller documents are scanned as they are. */
  readonly minBytes: number;
}

const BOUNDS: DocumentMemoBounds = { documents: 8, bytes: 16_777_216, minBytes: 8_192 };

/** From the first byte to behind the last one. */
interface Range {
  readonly start: number;
  readonly end: number;
}

/** What somebody worked out for a known document, and how much of it still stands in the document's latest turn. */
export class Note<T> {
  readonly value: T;
  /** Of the document that it was worked out for. */
  readonly #length: number;
  /** As many bytes at its beginning, and at its end, are those of the latest turn. */
  #prefix: number;
  #suffix: number;
  #shift = 0;

  constructor(value: T, length: number) {
    this.value = value;
    this.#length = length;
    this.#prefix = length;
    this.#suffix = length;
  }

  get prefix(): number {
    return this.#prefix;
  }
  /** By how much the latest turn is longer. */
  get shift(): number {
    return this.#shift;
  }
  turn(length: number, prefix: number, suffix: number): void {
    this.#shift = length - this.#length;
    this.#prefix = Math.min(this.#prefix, prefix);
    this.#suffix = Math.min(this.#suffix, suffix);
  }
  /** Whether the bytes that stood at `before` are those at `now` in the latest turn, as far from its beginning or its end. */
  stands(before: Range, now: Range): boolean {
    const shift = now.start - before.start;
    if (now.end - before.end !== shift) return false;
    if (shift === 0 && before.end <= this.#prefix) return true;
    return shift === this.#shift && before.start >= this.#length - this.#suffix;
  }
}

/** One of the documents that are remembered, as its latest turn left it. `bytes` is a copy. */
export class KnownDocument implements Outlined {
  bytes: Buffer;
  length: number;
  outline: Outline;
  /** One note is enough: a document is of one dialect. */
  #note: Note<unknown> | undefined;
  #noteOf: symbol | undefined;
  /** How many first bytes surely have none of what was searched for. */
  #without: Map<string, number> | undefined;

  constructor(buf: Buffer, outline: Outline) {
    this.bytes = Buffer.allocUnsafeSlow(buf.length + (buf.length >> 2));
    buf.copy(this.bytes);
    this.length = buf.length;
    this.outline = outline;
  }

  /** What `key`'s owner noted last, if it is the last that was noted. */
  note<T>(key: symbol): Note<T> | undefined {
    return this.#noteOf === key ? (this.#note as Note<T>) : undefined;
  }
  /** Notes `value` for the latest turn. */
  keep<T>(key: symbol, value: T): void {
    this.#noteOf = key;
    this.#note = new Note(value, this.length);
  }
  /** Makes `buf` the latest turn; its first `prefix` and last `suffix` bytes are those of the one before. */
  turn(buf: Buffer, outline: Outline, prefix: number, suffix: number): void {
    if (this.bytes.length < buf.length) {
      const grown = Buffer.allocUnsafeSlow(buf.length + (buf.length >> 2));
      this.bytes.copy(grown, 0, 0, prefix);
      this.bytes = grown;
    }
    buf.copy(this.bytes, prefix, prefix);
    this.length = buf.length;
    this.outline = outline;
    if (this.#without !== undefined)
      for (const [text, bytes] of this.#without) if (bytes > prefix) this.#without.set(text, prefix);
    this.#note?.turn(buf.length, prefix, suffix);
  }
  /** See {@link DocumentMemo.includes}. */
  includes(text: string): boolean {
    this.#without ??= new Map();
    const without = this.#without.get(text) ?? 0;
    const latest = this.bytes.subarray(0, this.length);
    const at = latest.indexOf(text, Math.max(0, without - text.length + 1), "latin1");
    if (this.#without.size < MAX_SEARCHED || without > 0) this.#without.set(text, at < 0 ? this.length : at);
    return at >= 0;
  }
}

/** Remembers the last documents it was asked about, to scan of a new turn of one of them only what is new. */
export class DocumentMemo {
  /** The one used last comes first. */
  readonly #known: KnownDocument[] = [];
  readonly #bounds: DocumentMemoBounds;
  #latest: WeakRef<Buffer> | undefined;

  constructor(bounds: DocumentMemoBounds = BOUNDS) {
    this.#bounds = bounds;
  }

  /** The outline of the object at `open`, as `outlineOf` gives it. Throws JsonSyntaxError. */
  outlineOf(buf: Buffer, open: number): Outline {
    return this.lookUp(buf, open)?.outline ?? outlineOf(buf, open).outline;
  }

  /**
   * The document whose latest turn is now `buf`, with the outline of the object at `open`; undefined for one that is too
   * small or too large to be remembered. Throws JsonSyntaxError.
   */
  lookUp(buf: Buffer, open: number): KnownDocument | undefined {
    // A document alone may take half of the bytes, so that a second one has room.
    if (buf.length < this.#bounds.minBytes || 2 * buf.length > this.#bounds.bytes) return undefined;
    const first = this.#known[0];
    if (first !== undefined && this.#latest?.deref() === buf) return first;
    let nearest: KnownDocument | undefined;
    let shared = 0;
    for (const known of this.#known) {
      const prefix = sharedPrefix(buf, known);
      if (prefix <= shared) continue;
      nearest = known;
      shared = prefix;
    }
    const { outline, suffix } = outlineOf(buf, open, nearest, shared);
    // The next turn of a conversation takes its place; another one that begins alike gets its own.
    const isNextTurn = nearest !== undefined && 2 * shared >= nearest.length;
    if (isNextTurn) nearest!.turn(buf, outline, shared, suffix);
    const document = isNextTurn ? nearest! : new KnownDocument(buf, outline);
    this.#putFirst(document);
    this.#latest = new WeakRef(buf);
    return document;
  }

  /**
   * Whether `text`, of ASCII characters, is anywhere in `buf`. Of a new turn of a known document only what is new is
   * searched: a text that begins with a quote, as a key does, is slow to search for where quotes are dense.
   */
  includes(buf: Buffer, text: string): boolean {
    return this.#documentOf(buf)?.includes(text) ?? buf.includes(text, 0, "latin1");
  }
  #documentOf(buf: Buffer): KnownDocument | undefined {
    const open = documentStart(buf);
    if (buf[open] !== OPEN_OBJECT) return undefined;
    try {
      return this.lookUp(buf, open);
    } catch (error) {
      if (error instanceof JsonSyntaxError) return undefined;
      throw error;
    }
  }

  /** Forgets all documents. */
  forget(): void {
    this.#known.length = 0;
    this.#latest = undefined;
  }

  #putFirst(document: KnownDocument): void {
    const known = this.#known;
    const at = known.indexOf(document);
    if (at > 0) known.splice(at, 1);
    if (at !== 0) known.unshift(document);
    let bytes = 0;
    let kept = 0;
    for (const each of known) {
      bytes += each.bytes.length;
      if (kept > 0 && (kept === this.#bounds.documents || bytes > this.#bounds.bytes)) break;
      kept++;
    }
    known.length = kept;
  }
}

/** The request bodies of all dialects: those of the conversations that are under way. */
export const requestBodies = new DocumentMemo();

/** How many first bytes of `buf` are surely those of the known document; up to a grain fewer than there are. */
function sharedPrefix(buf: Buffer, known: KnownDocument): number {
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

import { type AnswerKey, answerId, type StoredReply } from "@tokenman/plugin-sdk";
import { Recent } from "./recent.ts";
import {
  FIELDS_BYTES,
  Field,
  Flag,
  MAX_SEGMENTS,
  needleStart,
  SEGMENT_BYTES,
  Segment,
  UNIT_BYTES,
  UNITS,
} from "./segment.ts";

/** A tier that has only room for a few segments has smaller ones. */
const SEGMENTS = 16;
const MIN_SEGMENT_BYTES = 65_536;
/** What takes more than this part of a segment has one of its own. */
const LARGE_PART = 8;
/** A body up to this is copied out; of a larger one a part of its segment is lent. */
const COPIED_BYTES = 4_096;
/** Bytes of a reply in the mean, with its request: so many places there are in the table. */
const USUAL_BYTES = 1_024;
const MAX_BUCKETS = 2 ** 22;
const MAX_TOKENS = 2 ** 31 - 1;

/** A stored reply as it goes to disk, or comes from there. Its body, if it goes there, is only to be copied at once. */
export interface DiskEntry {
  readonly hash: number;
  /** See `AnswerKey.id`. */
  readonly id: string;
  readonly project: string;
  readonly stored: StoredReply;
}

/**
 * Replies in memory, bounded by bytes. They are copied into segments of memory that are filled one after the other, and
 * found by a table of numbers: however many there are, the collector of garbage sees none of them. The segment that was
 * filled first is the first to be given up; what was asked for since it was written is spared once, and so what is used stays.
 */
export class MemoryTier {
  #maxBytes = 0;
  /** Of a new one. */
  #segmentBytes = 0;
  #buckets = new Int32Array(0);
  /** Forgotten when a segment is given up or written anew: until then a place is the same reply's. */
  readonly #recent = new Recent();
  readonly #segments: (Segment | undefined)[] = [];
  /** In the order in which they are given up. The last one is written into, if it is not a large reply's. */
  readonly #order: Segment[] = [];
  #open: Segment | undefined;
  /** Bytes of all segments, and of the replies that count. */
  #held = 0;
  #bytes = 0;
  #count = 0;
  evicted = 0;

  constructor(maxBytes: number) {
    this.resize(maxBytes);
  }

  get bytes(): number {
    return this.#bytes;
  }
  get count(): number {
    return this.#count;
  }
  resize(maxBytes: number): void {
    if (maxBytes === this.#maxBytes) return;
    this.#maxBytes = maxBytes;
    const wanted = Math.min(Math.max(maxBytes / SEGMENTS, MIN_SEGMENT_BYTES), SEGMENT_BYTES, maxBytes);
    this.#segmentBytes = UNIT_BYTES * Math.floor(wanted / UNIT_BYTES);
    while (this.#held > maxBytes) this.#giveUp(this.#order[0]!);
    this.#buckets = new Int32Array(0);
    for (const segment of this.#order) for (const word of segment.replies()) this.#link(segment, word);
  }

  /** The reply to a request that {@link get} gave one to lately. */
  recall(words: Int32Array, body: Buffer): StoredReply | undefined {
    const answered = this.#recent.find(words, body);
    if (answered === undefined) return undefined;
    const { words: fields } = this.#segmentOf(answered.place);
    const flags = wordOf(answered.place) + Field.flags;
    if ((fields[flags]! & Flag.live) === 0) return undefined;
    fields[flags]! |= Flag.used;
    return answered.stored;
  }
  /** `asked`: the request's body, where it is to be remembered for {@link recall}. */
  get(key: AnswerKey, asked?: Buffer): StoredReply | undefined {
    const place = this.#find(key);
    if (place === 0) return undefined;
    const segment = this.#segmentOf(place);
    const word = wordOf(place);
    segment.words[word + Field.flags]! |= Flag.used;
    let body = bodyOf(segment, word);
    if (body.length <= COPIED_BYTES) body = Buffer.from(body);
    else segment.lent = true;
    const stored = replyOf(segment, word, textsOf(segment, word), body);
    if (asked !== undefined) this.#recent.put(key.words, asked, stored, place);
    return stored;
  }
  /** Keeps a copy. What is larger than the whole tier is not taken. */
  put(key: AnswerKey, project: string, stored: StoredReply, isWritten: boolean): void {
    this.delete(key);
    const { needle, words: keyWords } = key;
    const { body, headers, provider } = stored;
    const text =
      headers.length === 0 ? `${project}\n${provider}` : `${project}\n${provider}\n${headers.join("\n")}`;
    // A character takes up to three bytes.
    const segment = this.#room(FIELDS_BYTES + needle.length + 3 * text.length + body.length + UNIT_BYTES);
    if (segment === undefined) return;
    const { bytes, words, numbers, used } = segment;
    const word = used / 4;
    let end = needleStart(word);
    end += needle.copy(bytes, end);
    const textBytes = bytes.write(text, end, "utf8");
    end += textBytes;
    end += body.copy(bytes, end);
    const length = roundUp(end - used);
    words[word + Field.hash] = key.hash;
    words[word + Field.flags] =
      Flag.live |
      (isWritten ? Flag.written : 0) |
      (stored.chunked ? Flag.chunked : 0) |
      (key.isExact ? Flag.exact : 0);
    words[word + Field.length] = length;
    words[word + Field.tokens] = Math.min(stored.tokens, MAX_TOKENS);
    words[word + Field.needleBytes] = needle.length;
    words[word + Field.textBytes] = textBytes;
    words[word + Field.bodyBytes] = body.length;
    for (let index = 0; index < 8; index++) words[word + Field.words + index] = keyWords[index]!;
    numbers[(word + Field.at) / 2] = stored.at;
    numbers[(word + Field.nanoUsd) / 2] = stored.nanoUsd ?? Number.NaN;
    segment.used = used + length;
    segment.live++;
    this.#bytes += length;
    this.#count++;
    this.#link(segment, word);
  }
  delete(key: AnswerKey): void {
    const place = this.#find(key);
    if (place !== 0) this.#drop(this.#segmentOf(place), wordOf(place));
  }
  deleteOlder(before: number): void {
    this.#deleteWhere((segment, word) => segment.numbers[(word + Field.at) / 2]! < before);
  }
  /** Drops what is a project's, or all. Gives the hashes of their keys. */
  purge(project: string | undefined): number[] {
    const hashes: number[] = [];
    this.#deleteWhere((segment, word) => {
      if (project !== undefined && textsOf(segment, word)[0] !== project) return false;
      hashes.push(segment.words[word + Field.hash]!);
      return true;
    });
    return hashes;
  }
  /**
   * Up to so many replies that are not on disk, the newest ones of those written last; from now on they count as on disk.
   * `withinBytes` bounds how far back is looked.
   */
  unwritten(maxCount: number, maxBytes: number, withinBytes: number): DiskEntry[] {
    const found: [Segment, number][] = [];
    let looked = 0;
    for (let index = this.#order.length - 1; index >= 0 && looked < withinBytes; index--) {
      const segment = this.#order[index]!;
      looked += segment.used;
      const own: [Segment, number][] = [];
      for (const word of segment.replies())
        if ((segment.words[word + Field.flags]! & Flag.written) === 0) own.push([segment, word]);
      found.push(...own.reverse());
      if (found.length >= maxCount) break;
    }
    const taken: DiskEntry[] = [];
    let bytes = 0;
    for (const [segment, word] of found) {
      if (taken.length === maxCount || bytes >= maxBytes) break;
      segment.words[word + Field.flags]! |= Flag.written;
      const texts = textsOf(segment, word);
      const body = bodyOf(segment, word);
      bytes += body.length;
      const stored = replyOf(segment, word, texts, body);
      taken.push({
        hash: segment.words[word + Field.hash]!,
        id: idOf(segment, word),
        project: texts[0]!,
        stored,
      });
    }
    return taken;
  }
  /** They are not on disk after all. */
  notWritten(hashes: readonly number[]): void {
    for (const hash of hashes) {
      for (let place = this.#first(hash); place !== 0; ) {
        const { words } = this.#segmentOf(place);
        const word = wordOf(place);
        if (words[word + Field.hash] === hash) words[word + Field.flags]! &= ~Flag.written;
        place = words[word + Field.next]!;
      }
    }
  }

  #segmentOf(place: number): Segment {
    return this.#segments[Math.floor(((place >>> 0) - 1) / UNITS)]!;
  }
  #first(hash: number): number {
    const buckets = this.#buckets;
    return buckets.length === 0 ? 0 : buckets[hash & (buckets.length - 1)]!;
  }
  #find(key: AnswerKey): number {
    const { hash } = key;
    for (let place = this.#first(hash); place !== 0; ) {
      const segment = this.#segmentOf(place);
      const word = wordOf(place);
      if (segment.words[word + Field.hash] === hash && isOf(segment, word, key)) return place;
      place = segment.words[word + Field.next]!;
    }
    return 0;
  }
  #link(segment: Segment, word: number): void {
    if (this.#buckets.length === 0) this.#buckets = new Int32Array(bucketsFor(this.#maxBytes));
    const { words } = segment;
    const bucket = words[word + Field.hash]! & (this.#buckets.length - 1);
    words[word + Field.next] = this.#buckets[bucket]!;
    this.#buckets[bucket] = segment.placeOf(word);
  }
  /** Takes it out of its bucket. */
  #unlink(segment: Segment, word: number): void {
    const place = segment.placeOf(word) | 0;
    const next = segment.words[word + Field.next]!;
    const bucket = segment.words[word + Field.hash]! & (this.#buckets.length - 1);
    let each = this.#buckets[bucket]!;
    if (each === place) {
      this.#buckets[bucket] = next;
      return;
    }
    while (each !== 0) {
      const { words } = this.#segmentOf(each);
      const at = wordOf(each) + Field.next;
      each = words[at]!;
      if (each !== place) continue;
      words[at] = next;
      return;
    }
  }
  #drop(segment: Segment, word: number): void {
    this.#unlink(segment, word);
    segment.words[word + Field.flags]! &= ~Flag.live;
    this.#bytes -= segment.words[word + Field.length]!;
    this.#count--;
    segment.live--;
  }
  #deleteWhere(matches: (segment: Segment, word: number) => boolean): void {
    // What is purged or too old is to be gone, its request too.
    this.#recent.clear();
    for (const segment of [...this.#order]) {
      if (segment.live > 0)
        for (const word of segment.replies()) if (matches(segment, word)) this.#drop(segment, word);
      if (segment.live === 0) this.#remove(segment);
    }
  }

  /** A segment with room for a reply of so many bytes, which is written next. */
  #room(bytes: number): Segment | undefined {
    const open = this.#open;
    if (open !== undefined && open.used + bytes <= open.size) return open;
    const isLarge = bytes > this.#segmentBytes / LARGE_PART;
    const size = isLarge ? roundUp(bytes) : this.#segmentBytes;
    if (size > this.#maxBytes) return undefined;
    while (this.#held + size > this.#maxBytes || this.#order.length === MAX_SEGMENTS) {
      const oldest = this.#order[0]!;
      if (!isLarge && oldest.size === size && !oldest.isLarge) return this.#renew(oldest);
      if (!this.#spares(oldest)) this.#giveUp(oldest);
    }
    return this.#add(size, isLarge);
  }
  #add(size: number, isLarge: boolean): Segment {
    const free = this.#segments.indexOf(undefined);
    const segment = new Segment(free < 0 ? this.#segments.length : free, size, isLarge);
    this.#segments[segment.slot] = segment;
    this.#enqueue(segment);
    this.#held += size;
    if (!isLarge) this.#open = segment;
    return segment;
  }
  /** What is written into comes last: it has the newest replies. */
  #enqueue(segment: Segment): void {
    const isBefore = segment.isLarge && this.#open !== undefined && this.#order.at(-1) === this.#open;
    this.#order.splice(this.#order.length - (isBefore ? 1 : 0), 0, segment);
  }
  #remove(segment: Segment): void {
    this.#order.splice(this.#order.indexOf(segment), 1);
    this.#segments[segment.slot] = undefined;
    this.#held -= segment.size;
    this.#recent.clear();
    if (this.#open === segment) this.#open = undefined;
  }
  #giveUp(segment: Segment): void {
    for (const word of segment.replies()) this.#leave(segment, word, this.#open, this.#open?.size ?? 0);
    this.#remove(segment);
  }
  /** A large reply that was used stays where it is, and has its turn once more. */
  #spares(segment: Segment): boolean {
    const wanted = Flag.used | Flag.live;
    if (!segment.isLarge || (segment.words[Field.flags]! & wanted) !== wanted) return false;
    segment.words[Field.flags]! &= ~Flag.used;
    this.#order.shift();
    this.#enqueue(segment);
    return true;
  }
  /** Empties the oldest segment of all but what was used, up to a half of it, and goes on writing there. */
  #renew(segment: Segment): Segment {
    this.#recent.clear();
    segment.unlend();
    const replies = segment.replies();
    segment.used = 0;
    for (const word of replies) this.#leave(segment, word, segment, segment.size / 2);
    this.#order.shift();
    this.#order.push(segment);
    this.#open = segment;
    return segment;
  }
  /** Takes a reply from its place; one that was used goes to the end of another segment, where that has room up to `limit`. */
  #leave(from: Segment, word: number, to: Segment | undefined, limit: number): void {
    const length = from.words[word + Field.length]!;
    const isUsed = (from.words[word + Field.flags]! & Flag.used) !== 0;
    if (!isUsed || to === undefined || to.used + length > limit || (to === from && to.used > 4 * word)) {
      this.#drop(from, word);
      this.evicted++;
      return;
    }
    this.#unlink(from, word);
    from.bytes.copy(to.bytes, to.used, 4 * word, 4 * word + length);
    const moved = to.used / 4;
    to.words[moved + Field.flags]! &= ~Flag.used;
    to.used += length;
    from.live--;
    to.live++;
    this.#link(to, moved);
  }
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / UNIT_BYTES) * UNIT_BYTES;
}
function bucketsFor(maxBytes: number): number {
  return Math.min(MAX_BUCKETS, 2 ** Math.max(6, Math.ceil(Math.log2(maxBytes / USUAL_BYTES))));
}
function wordOf(place: number): number {
  return 2 * (((place >>> 0) - 1) % UNITS);
}

function isOf({ bytes, words }: Segment, word: number, key: AnswerKey): boolean {
  const { needle, words: keyWords } = key;
  if (words[word + Field.needleBytes] !== needle.length) return false;
  if (((words[word + Field.flags]! & Flag.exact) !== 0) !== key.isExact) return false;
  for (let index = 0; index < 8; index++)
    if (words[word + Field.words + index] !== keyWords[index]) return false;
  const from = needleStart(word);
  return needle.compare(bytes, from, from + needle.length) === 0;
}

/** See `AnswerKey.id`: words and needle stand side by side. */
function idOf({ bytes, words }: Segment, word: number): string {
  const isExact = (words[word + Field.flags]! & Flag.exact) !== 0;
  const end = needleStart(word) + words[word + Field.needleBytes]!;
  return answerId(isExact, bytes.subarray(4 * (word + Field.words), end));
}

/** The texts of a reply: its project, its provider, and its headers. */
function textsOf({ bytes, words }: Segment, word: number): string[] {
  const start = needleStart(word) + words[word + Field.needleBytes]!;
  return bytes.toString("utf8", start, start + words[word + Field.textBytes]!).split("\n");
}
/** A part of the segment, which may be written anew at any later time. */
function bodyOf({ bytes, words }: Segment, word: number): Buffer {
  const start = needleStart(word) + words[word + Field.needleBytes]! + words[word + Field.textBytes]!;
  return bytes.subarray(start, start + words[word + Field.bodyBytes]!);
}
function replyOf(
  { words, numbers }: Segment,
  word: number,
  texts: readonly string[],
  body: Buffer,
): StoredReply {
  const nanoUsd = numbers[(word + Field.nanoUsd) / 2]!;
  return {
    headers: texts.slice(2),
    body,
    chunked: (words[word + Field.flags]! & Flag.chunked) !== 0,
    provider: texts[1]!,
    at: numbers[(word + Field.at) / 2]!,
    tokens: words[word + Field.tokens]!,
    nanoUsd: Number.isNaN(nanoUsd) ? undefined : nanoUsd,
  };
}

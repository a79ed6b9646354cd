/**
 * Reading a JSON document by byte range. The document is scanned once, into a tape; nodes are made for what is asked for
 * and nothing is decoded before it is read, so raw bytes, number spelling and duplicate keys stay within reach.
 */

import type { DocumentMemo } from "./json-memo.ts";
import { MEMBER, type Outline, outlineOf } from "./json-outline.ts";
import {
  BACKSLASH,
  CLOSE_OBJECT,
  COMMA,
  decodeString,
  documentStart,
  expectDocumentEnd,
  JsonSyntaxError,
  JsonTape,
  memberStart,
  OPEN_ARRAY,
  OPEN_OBJECT,
  parseText,
  scanValue,
  skipSpace,
} from "./json-text.ts";

export { JsonSyntaxError };

export type JsonKind = "object" | "array" | "string" | "number" | "true" | "false" | "null";

/** A member of an object: its key's literal is [keyStart, keyEnd), quotes included. */
export class JsonMember {
  readonly keyStart: number;
  readonly keyEnd: number;
  readonly value: JsonNode;
  private readonly buf: Buffer;
  private decoded: string | undefined;

  constructor(buf: Buffer, keyStart: number, keyEnd: number, value: JsonNode) {
    this.buf = buf;
    this.keyStart = keyStart;
    this.keyEnd = keyEnd;
    this.value = value;
  }

  /** The decoded key. Throws JsonSyntaxError on a bad escape. */
  get key(): string {
    this.decoded ??= decodeString(this.buf, this.keyStart, this.keyEnd);
    return this.decoded;
  }

  /** Whether the decoded key is `key`. Decodes only where the literal's length allows it. */
  isNamed(key: string): boolean {
    // One UTF-16 unit takes 1 byte at least and, as \uXXXX, 6 at most.
    const bytes = this.keyEnd - this.keyStart - 2;
    return bytes >= key.length && bytes <= 6 * key.length && this.key === key;
  }
}

const NO_MEMBERS: readonly JsonMember[] = [];
const NO_ITEMS: readonly JsonNode[] = [];
/** Of the member that `pick` is at. */
const pickedKey = new JsonTape(1);

/**
 * A tape takes a microsecond or two to make, and all of a value; what is shorter and not in many others is scanned for its
 * children alone, a third of a microsecond for a message. Bounded, so that no depth makes the scans add up.
 */
const PLAIN_BYTES = 16_384;
const PLAIN_DEPTH = 4;

/** One value of a document: the bytes [start, end) of its buffer, which must not change while the node is in use. */
export class JsonNode {
  readonly start: number;
  readonly end: number;
  private readonly buf: Buffer;
  private tape: JsonTape | Outline | null;
  private slot: number;
  private members: readonly JsonMember[] | undefined;
  private elements: readonly JsonNode[] | undefined;

  /**
   * Nodes come from `parseIndex`, `topLevel` and `nodeAt`. `tape` is null where the value's inside has not been scanned
   * into one; then `slot` is how many containers of such a value it is in. An outline knows the children of the document's
   * object, and of the member at `slot` where that is an array.
   */
  constructor(buf: Buffer, start: number, end: number, tape: JsonTape | Outline | null, slot: number) {
    this.buf = buf;
    this.start = start;
    this.end = end;
    this.tape = tape;
    this.slot = slot;
  }

  get kind(): JsonKind {
    switch (this.buf[this.start]) {
      case OPEN_OBJECT:
        return "object";
      case OPEN_ARRAY:
        return "array";
      case 0x22:
        return "string";
      case 0x74:
        return "true";
      case 0x66:
        return "false";
      case 0x6e:
        return "null";
      default:
        return "number";
    }
  }

  /** The source text, as it stands: `1.0`, `12345678901234567890` and escapes included. */
  raw(): string {
    return this.buf.toString("utf8", this.start, this.end);
  }

  /** The first bytes of the source text, one character each. */
  head(maxBytes: number): string {
    return this.buf.toString("latin1", this.start, Math.min(this.end, this.start + maxBytes));
  }

  /** A string's decoded value. Throws TypeError on a value of another kind, JsonSyntaxError on a bad escape. */
  text(): string {
    if (this.buf[this.start] !== 0x22) throw new TypeError(`JSON: expected a string, found ${this.kind}`);
    return decodeString(this.buf, this.start, this.end);
  }

  /** What JSON.parse makes of the value (a new object each time). Throws JsonSyntaxError. */
  value(): unknown {
    return this.kind === "string" ? this.text() : parseText(this.raw(), this.start);
  }

  /** An object's members in source order, duplicates included; none for other kinds. */
  entries(): readonly JsonMember[] {
    this.members ??= this.buf[this.start] === OPEN_OBJECT ? this.readMembers() : NO_MEMBERS;
    return this.members;
  }

  /** An array's elements; none for other kinds. */
  items(): readonly JsonNode[] {
    this.elements ??= this.buf[this.start] === OPEN_ARRAY ? this.readElements() : NO_ITEMS;
    return this.elements;
  }

  /** An array's elements one after another: those behind the last one that is asked for are not scanned. */
  *each(): Generator<JsonNode, void> {
    const { buf } = this;
    if (buf[this.start] !== OPEN_ARRAY) return;
    let pos = skipSpace(buf, this.start + 1);
    while (pos < this.end - 1) {
      const end = scanValue(buf, pos, null);
      yield new JsonNode(buf, pos, end, null, 0);
      pos = skipSpace(buf, end);
      if (buf[pos] !== COMMA) return;
      pos = skipSpace(buf, pos + 1);
    }
  }

  /** The value of the object's last member called `key`, as with JSON.parse; undefined for other kinds. */
  get(key: string): JsonNode | undefined {
    return this.entries().findLast((member) => member.isNamed(key))?.value;
  }

  /**
   * The values of the wanted members, each as {@link get} gives it, in one pass that keeps nothing of the others: for an
   * object that is asked once. Throws JsonSyntaxError on a bad escape in a key.
   */
  pick(wanted: ReadonlySet<string>): Map<string, JsonNode> {
    const { buf } = this;
    const found = new Map<string, JsonNode>();
    if (buf[this.start] !== OPEN_OBJECT) return found;
    let pos = skipSpace(buf, this.start + 1);
    while (pos < this.end - 1) {
      pickedKey.length = 0;
      const start = skipSpace(buf, memberStart(buf, pos, pickedKey));
      const name = keyAmong(buf, pickedKey.words[0]!, pickedKey.words[1]!, wanted);
      const end = scanValue(buf, start, null);
      if (name !== undefined) found.set(name, new JsonNode(buf, start, end, null, 0));
      pos = skipSpace(buf, end);
      if (buf[pos] !== COMMA) break;
      pos = skipSpace(buf, pos + 1);
    }
    return found;
  }

  /** The array's element `index`; undefined outside it and for other kinds. */
  at(index: number): JsonNode | undefined {
    return this.items()[index];
  }

  /**
   * The value that a JSON Pointer (RFC 6901) names from here, or undefined. Throws RangeError on what is no pointer.
   */
  find(pointer: string): JsonNode | undefined {
    let node: JsonNode | undefined = this;
    for (const token of pointerTokens(pointer)) {
      node = node.buf[node.start] === OPEN_ARRAY ? node.at(arrayIndex(token)) : node.get(token);
      if (node === undefined) return undefined;
    }
    return node;
  }

  private readMembers(): JsonMember[] {
    if (this.tape !== null && !(this.tape instanceof JsonTape)) return this.outlinedMembers(this.tape);
    if (this.isPlain()) return this.plainMembers();
    const tape = this.scanned();
    const { words } = tape;
    const members: JsonMember[] = [];
    const closing = words[this.slot + 1]!;
    for (let slot = this.slot + 2; slot < closing; ) {
      const value = this.child(tape, slot + 2);
      members.push(new JsonMember(this.buf, words[slot]!, words[slot + 1]!, value));
      slot = this.next(words, slot + 2);
    }
    return members;
  }

  private readElements(): JsonNode[] {
    if (this.tape !== null && !(this.tape instanceof JsonTape)) return this.outlinedElements(this.tape);
    if (this.isPlain()) return this.plainElements();
    const tape = this.scanned();
    const { words } = tape;
    const elements: JsonNode[] = [];
    const closing = words[this.slot + 1]!;
    for (let slot = this.slot + 2; slot < closing; slot = this.next(words, slot)) {
      elements.push(this.child(tape, slot));
    }
    return elements;
  }

  private outlinedMembers(outline: Outline): JsonMember[] {
    const { members } = outline;
    const found: JsonMember[] = [];
    for (let at = 0; at < members.length; at += MEMBER) {
      const value = memberValue(this.buf, outline, at);
      found.push(new JsonMember(this.buf, members[at]!, members[at + 1]!, value));
    }
    return found;
  }

  private outlinedElements({ members, elements }: Outline): JsonNode[] {
    const first = members[this.slot + 4]!;
    const behind = first + members[this.slot + 5]!;
    const found: JsonNode[] = [];
    for (let at = first; at < behind; at += 2)
      found.push(new JsonNode(this.buf, elements[at]!, elements[at + 1]!, null, 0));
    return found;
  }

  /** Whether to scan it for its children alone costs less than a tape, although theirs will be scanned once more. */
  private isPlain(): boolean {
    return this.tape === null && this.end - this.start <= PLAIN_BYTES && this.slot < PLAIN_DEPTH;
  }

  private plainMembers(): JsonMember[] {
    const { buf } = this;
    const members: JsonMember[] = [];
    let pos = skipSpace(buf, this.start + 1);
    while (pos < this.end - 1) {
      pickedKey.length = 0;
      const start = skipSpace(buf, memberStart(buf, pos, pickedKey));
      const end = scanValue(buf, start, null);
      const value = new JsonNode(buf, start, end, null, this.slot + 1);
      members.push(new JsonMember(buf, pickedKey.words[0]!, pickedKey.words[1]!, value));
      pos = skipSpace(buf, end);
      if (buf[pos] !== COMMA) break;
      pos = skipSpace(buf, pos + 1);
    }
    return members;
  }

  private plainElements(): JsonNode[] {
    const { buf } = this;
    const elements: JsonNode[] = [];
    let pos = skipSpace(buf, this.start + 1);
    while (pos < this.end - 1) {
      const end = scanValue(buf, pos, null);
      elements.push(new JsonNode(buf, pos, end, null, this.slot + 1));
      pos = skipSpace(buf, end);
      if (buf[pos] !== COMMA) break;
      pos = skipSpace(buf, pos + 1);
    }
    return elements;
  }

  /** The tape with this container on it. A node made without one stands alone, so its own tape has it in slot 0. */
  private scanned(): JsonTape {
    if (!(this.tape instanceof JsonTape)) {
      const tape = new JsonTape((this.end - this.start) >> 5);
      scanValue(this.buf, this.start, tape);
      this.tape = tape;
      this.slot = 0;
    }
    return this.tape;
  }

  private child(tape: JsonTape, slot: number): JsonNode {
    const { words } = tape;
    const start = words[slot]!;
    const end = this.isContainer(start) ? words[words[slot + 1]!]! : words[slot + 1]!;
    return new JsonNode(this.buf, start, end, tape, slot);
  }

  /** The slot behind the value in `slot`. */
  private next(words: Int32Array, slot: number): number {
    return (this.isContainer(words[slot]!) ? words[slot + 1]! : slot) + 2;
  }

  private isContainer(start: number): boolean {
    const byte = this.buf[start];
    return byte === OPEN_OBJECT || byte === OPEN_ARRAY;
  }
}

/** The tokens of a JSON Pointer, unescaped (RFC 6901 §4). Throws RangeError on what is no pointer. */
export function pointerTokens(pointer: string): string[] {
  if (pointer === "") return [];
  if (!pointer.startsWith("/") || /~(?![01])/.test(pointer)) {
    throw new RangeError(
      `expected a JSON Pointer ("" or "/a/0", with ~0 for ~ and ~1 for /), found ${JSON.stringify(pointer)}`,
    );
  }
  const tokens = pointer.slice(1).split("/");
  return pointer.includes("~")
    ? tokens.map((token) => token.replaceAll("~1", "/").replaceAll("~0", "~"))
    : tokens;
}

/**
 * Finds the values that pointers name. A container that many of them are in, one after another, is looked up once: a cut
 * takes hundreds of elements out of a list.
 */
export class Places {
  readonly #root: JsonNode;
  #prefix: string | undefined;
  #parent: JsonNode | undefined;

  constructor(root: JsonNode) {
    this.#root = root;
  }
  /**
   * The container that holds the pointer's target, undefined where there is none, and the target's token in it. Of the
   * root, which is in none, the token is undefined. Throws RangeError on what is no pointer.
   */
  holder(pointer: string): { readonly parent: JsonNode | undefined; readonly token: string | undefined } {
    const slash = pointer.lastIndexOf("/");
    if (slash < 0) return { parent: undefined, token: pointerTokens(pointer)[0] };
    const prefix = pointer.slice(0, slash);
    if (prefix !== this.#prefix) {
      this.#parent = this.#root.find(prefix);
      this.#prefix = prefix;
    }
    const token = pointer.slice(slash + 1);
    return { parent: this.#parent, token: token.includes("~") ? pointerTokens(`/${token}`)[0] : token };
  }
  /** The value that the pointer names; see `JsonNode.find`. */
  find(pointer: string): JsonNode | undefined {
    const { parent, token } = this.holder(pointer);
    if (token === undefined) return this.#root;
    return parent?.kind === "array" ? parent.at(arrayIndex(token)) : parent?.get(token);
  }
}

/** The array index that a token spells, or -1 (RFC 6901 §4: digits without a leading zero). */
export function arrayIndex(token: string): number {
  return /^(?:0|[1-9][0-9]*)$/.test(token) ? Number(token) : -1;
}

/** The offset behind the value that begins at `pos` (white space before it is skipped). Throws JsonSyntaxError. */
export function skipValue(buf: Buffer, pos: number): number {
  return scanValue(buf, pos, null);
}

/**
 * The document's root. A UTF-8 byte order mark and white space around the value are tolerated. Throws JsonSyntaxError
 * where the structure is not JSON; string literals are checked only when they are read. With a `memo`, only what is new
 * since a document that it has seen is scanned, and of a container below the second level what is read.
 */
export function parseIndex(buf: Buffer, memo?: DocumentMemo): JsonNode {
  const start = documentStart(buf);
  if (memo !== undefined && buf[start] === OPEN_OBJECT) {
    const outline = memo.outlineOf(buf, start);
    return new JsonNode(buf, start, buf.lastIndexOf(CLOSE_OBJECT) + 1, outline, 0);
  }
  const tape = new JsonTape(buf.length >> 5);
  const end = scanValue(buf, start, tape);
  expectDocumentEnd(buf, end);
  return new JsonNode(buf, start, end, tape, 0);
}

/** The value at [start, end) of a document that is known to be JSON. */
export function nodeAt(buf: Buffer, start: number, end: number): JsonNode {
  return new JsonNode(buf, start, end, null, 0);
}

/** The value of the member at `at` of an outline. */
function memberValue(buf: Buffer, outline: Outline, at: number): JsonNode {
  const { members } = outline;
  if (members[at + 5]! < 0) return nodeAt(buf, members[at + 2]!, members[at + 3]!);
  return new JsonNode(buf, members[at + 2]!, members[at + 3]!, outline, at);
}

/**
 * The values of the wanted top-level keys that the document has, in one pass that makes no node for anything else. Keys
 * compare decoded, and of duplicates the last one counts, as with JSON.parse. Empty where the document is no object.
 * Throws JsonSyntaxError as `parseIndex` does; for `memo` see there.
 *
 * The pass always goes to the end: to prove by native search that no later `"model"` follows costs nearly as much as
 * the scan, because quotes are dense in an agent's body.
 */
export function topLevel(
  buf: Buffer,
  wanted: ReadonlySet<string>,
  memo?: DocumentMemo,
): Map<string, JsonNode> {
  const found = new Map<string, JsonNode>();
  const start = documentStart(buf);
  if (buf[start] !== OPEN_OBJECT) {
    expectDocumentEnd(buf, scanValue(buf, start, null));
    return found;
  }
  const outline = memo === undefined ? outlineOf(buf, start).outline : memo.outlineOf(buf, start);
  const { members } = outline;
  for (let at = 0; at < members.length; at += MEMBER) {
    const name = keyAmong(buf, members[at]!, members[at + 1]!, wanted);
    if (name !== undefined) found.set(name, memberValue(buf, outline, at));
  }
  return found;
}

/** The wanted name that the key's literal spells. Decoded only where it has escapes, or more than ASCII. */
function keyAmong(buf: Buffer, start: number, end: number, wanted: ReadonlySet<string>): string | undefined {
  for (let at = start + 1; at < end - 1; at++) {
    const byte = buf[at]!;
    if (byte !== BACKSLASH && byte < 0x80) continue;
    const name = decodeString(buf, start, end);
    return wanted.has(name) ? name : undefined;
  }
  for (const name of wanted)
    if (name.length === end - start - 2 && isSpelled(buf, start + 1, name)) return name;
  return undefined;
}

function isSpelled(buf: Buffer, start: number, name: string): boolean {
  for (let i = 0; i < name.length; i++) if (buf[start + i] !== name.charCodeAt(i)) return false;
  return true;
}

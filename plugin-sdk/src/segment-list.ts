/**
 * How a dialect lists the segments of a body: value by value and element by element. What stood in the turn before is
 * taken over, so the cost of a turn is that of its new messages.
 */
import type { SegmentKind, SegmentRole, SegmentSpan } from "./dialect.ts";
import { type JsonNode, nodeAt } from "./json-index.ts";
import { type Note, requestBodies } from "./json-memo.ts";
import { MEMBER, type Outline, outlineOf } from "./json-outline.ts";
import { decodeString, documentStart, OPEN_OBJECT } from "./json-text.ts";

/** Where a piece of content stands: shared by all segments found in it. */
export interface SegmentPlace {
  readonly role: SegmentRole;
  readonly message: number;
  readonly tool?: string;
}

/** The segments of one value. */
export class SegmentList {
  readonly spans: SegmentSpan[] = [];
  /** Tools called in it, by the call's id: a result names only that id. */
  readonly calls: [id: string, tool: string][] = [];
  readonly #before: (id: string) => string | undefined;

  constructor(before: (id: string) => string | undefined) {
    this.#before = before;
  }

  /** Adds a value; nothing where it is missing or null. */
  add(
    node: JsonNode | undefined,
    pointer: string,
    kind: SegmentKind,
    place: SegmentPlace,
    sealed = false,
  ): void {
    if (node === undefined || node.kind === "null") return;
    const { start, end } = node;
    this.spans.push({ pointer, kind, sealed, start, end, ...place });
  }
  /** Adds an object's member. */
  member(
    holder: JsonNode,
    pointer: string,
    key: string,
    kind: SegmentKind,
    place: SegmentPlace,
    sealed = false,
  ): void {
    this.add(holder.get(key), `${pointer}/${key}`, kind, place, sealed);
  }
  /** Notes a call, for the results to come. */
  called(id: string | undefined, tool: string | undefined): void {
    if (id !== undefined && tool !== undefined) this.calls.push([id, tool]);
  }
  /** The tool that was called under `id`, here or in a value before. */
  toolOf(id: string | undefined): string | undefined {
    if (id === undefined) return undefined;
    return this.calls.findLast(([known]) => known === id)?.[1] ?? this.#before(id);
  }
}

/** The segments of a value as they were listed, with its place. */
interface Listed {
  readonly start: number;
  readonly end: number;
  readonly spans: readonly SegmentSpan[];
  readonly calls: SegmentList["calls"];
}

/** What was listed of one top-level value: of the whole, or of each element. */
interface Part {
  readonly start: number;
  readonly listed: readonly Listed[];
}
type Parts = Map<string, Part>;

/** A body's top-level values, to list in the order in which the provider reads them. */
export class BodyReader {
  readonly spans: SegmentSpan[] = [];
  readonly parts: Parts = new Map();
  readonly #body: Buffer;
  readonly #outline: Outline;
  readonly #before: Note<Parts> | undefined;
  readonly #members = new Map<string, number>();
  readonly #listed: Listed[] = [];

  constructor(body: Buffer, outline: Outline, before: Note<Parts> | undefined) {
    this.#body = body;
    this.#outline = outline;
    this.#before = before;
    const { members } = outline;
    // Of duplicates the last one counts, as with JSON.parse.
    for (let at = 0; at < members.length; at += MEMBER)
      this.#members.set(decodeString(body, members[at]!, members[at + 1]!), at);
  }

  get(key: string): JsonNode | undefined {
    const at = this.#members.get(key);
    if (at === undefined) return undefined;
    const { members } = this.#outline;
    return nodeAt(this.#body, members[at + 2]!, members[at + 3]!);
  }

  /** Lists a value; `list` is called where it is new. */
  value(key: string, list: (value: JsonNode, into: SegmentList) => void): void {
    const value = this.get(key);
    if (value === undefined) return;
    const before = this.#partBefore(key, value.start);
    const listed = this.#take(before?.listed[0], value.start, value.end, list);
    this.parts.set(key, { start: value.start, listed: [listed] });
  }

  /** Lists an array's elements; `list` is called for those that are new. Nothing for a value of another kind. */
  elements(key: string, list: (element: JsonNode, index: number, into: SegmentList) => void): void {
    const value = this.get(key);
    if (value === undefined || value.kind !== "array") return;
    const before = this.#partBefore(key, value.start);
    const { members, elements } = this.#outline;
    const at = this.#members.get(key)!;
    const count = members[at + 5]!;
    const first = members[at + 4]!;
    const listed = this.#standing(before, first, count);
    const take = (start: number, end: number): void => {
      const index = listed.length;
      listed.push(this.#take(before?.listed[index], start, end, (node, into) => list(node, index, into)));
    };
    for (let element = first + 2 * listed.length; element < first + count; element += 2)
      take(elements[element]!, elements[element + 1]!);
    if (count < 0) for (const { start, end } of value.items()) take(start, end);
    this.parts.set(key, { start: value.start, listed });
  }

  /** The first elements, as far as they stand where they stood: most of a conversation. */
  #standing(part: Part | undefined, first: number, count: number): Listed[] {
    const before = this.#before;
    if (part === undefined || before === undefined) return [];
    const { elements } = this.#outline;
    const most = Math.min(part.listed.length, count / 2);
    let standing = 0;
    for (; standing < most; standing++) {
      const each = part.listed[standing]!;
      const at = first + 2 * standing;
      if (each.end > before.prefix || each.end !== elements[at + 1] || each.start !== elements[at]) break;
      this.#listed.push(each);
      for (const span of each.spans) this.spans.push(span);
    }
    return part.listed.slice(0, standing);
  }

  /** What was listed of the value before, if the value begins where it began, from the body's beginning or its end. */
  #partBefore(key: string, start: number): Part | undefined {
    const part = this.#before?.value.get(key);
    if (part === undefined) return undefined;
    return part.start === start || part.start + this.#before!.shift === start ? part : undefined;
  }

  #take(
    before: Listed | undefined,
    start: number,
    end: number,
    list: (node: JsonNode, into: SegmentList) => void,
  ): Listed {
    const listed = this.#again(before, start, end) ?? this.#anew(start, end, list);
    this.#listed.push(listed);
    for (const span of listed.spans) this.spans.push(span);
    return listed;
  }
  #anew(start: number, end: number, list: (node: JsonNode, into: SegmentList) => void): Listed {
    const into = new SegmentList((id) => this.#calledBefore(id));
    list(nodeAt(this.#body, start, end), into);
    return { start, end, spans: into.spans, calls: into.calls };
  }
  /** What was listed, where its bytes are still there. */
  #again(listed: Listed | undefined, start: number, end: number): Listed | undefined {
    const before = this.#before;
    if (listed === undefined || before?.stands(listed, { start, end }) !== true) return undefined;
    const shift = start - listed.start;
    if (shift === 0) return listed;
    const spans = listed.spans.map((span) => ({
      ...span,
      start: span.start + shift,
      end: span.end + shift,
    }));
    return { start, end, spans, calls: listed.calls };
  }
  #calledBefore(id: string): string | undefined {
    for (let index = this.#listed.length - 1; index >= 0; index--) {
      const call = this.#listed[index]!.calls.findLast(([known]) => known === id);
      if (call !== undefined) return call[1];
    }
    return undefined;
  }
}

/**
 * The segments that `read` lists of a body; none where it is no JSON object. Never throws. What `read` lists of a value
 * may depend on nothing but the value's bytes, its index, and the calls noted before it. `dialect` tells the lists of
 * different dialects apart.
 */
export function listSegments(
  dialect: symbol,
  body: Buffer,
  read: (body: BodyReader) => void,
): readonly SegmentSpan[] {
  const open = documentStart(body);
  if (body[open] !== OPEN_OBJECT) return [];
  try {
    const known = requestBodies.lookUp(body, open);
    const outline = known?.outline ?? outlineOf(body, open).outline;
    const reader = new BodyReader(body, outline, known?.note<Parts>(dialect));
    read(reader);
    known?.keep(dialect, reader.parts);
    return reader.spans;
  } catch {
    return [];
  }
}

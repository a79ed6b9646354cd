/**
 * Edits of a JSON document by splicing bytes: what no edit names is copied as it stands. The parts that an edit rewrites
 * are its value, or for added and removed members and elements the gap between two neighbours that stay.
 */
import { arrayIndex, type JsonNode, Places, parseIndex } from "./json-index.ts";

/**
 * One edit. `text` gives a string node another value. `patch` takes a value, `raw` JSON source text, and both follow RFC
 * 6902 but for one rule: all pointers refer to the original document, whatever the other edits do.
 */
export type JsonEdit =
  | { readonly kind: "text"; readonly node: JsonNode; readonly text: string }
  | {
      readonly kind: "patch";
      readonly op: "add" | "replace" | "remove";
      readonly pointer: string;
      readonly value?: unknown;
    }
  | {
      readonly kind: "raw";
      readonly op: "replace" | "add";
      readonly pointer: string;
      readonly json: Buffer | string;
    };

/** An edit that cannot be applied: its place does not exist, or an earlier edit replaced or removed what it is in. */
export class SpliceConflict extends Error {
  override readonly name = "SpliceConflict";
  readonly pointer: string;

  constructor(pointer: string, reason: string) {
    super(`cannot edit ${pointer === "" ? "the document" : pointer}: ${reason}`);
    this.pointer = pointer;
  }
}

/** What is to become of one original value: other bytes, none (removed), or its own (null). */
interface Claim {
  readonly node: JsonNode;
  readonly bytes: Buffer | null;
  /** The container to take the member or element out of, for a removal. */
  readonly removedFrom: JsonNode | undefined;
}

/** What is added to one original container. */
interface Additions {
  readonly container: JsonNode;
  /** Objects: new members by key, in the order first added. */
  readonly members: Map<string, Buffer>;
  /** Arrays: new elements by the index of the original element that they precede. */
  readonly elements: Map<number, Buffer[]>;
}

/** Replaces the bytes [start, end) of the document. */
interface Cut {
  readonly start: number;
  readonly end: number;
  readonly pieces: readonly (Buffer | string)[];
}

/**
 * The document with `edits` applied. `root` is the index of `buf`. Every byte outside the edited ranges is the original's;
 * where no edit changes anything, `buf` itself is returned. In the order of `edits`:
 *
 * - a later edit of the same value wins over an earlier one;
 * - an edit of a value supersedes earlier edits inside it;
 * - an edit inside a value that an earlier edit replaced or removed throws SpliceConflict;
 * - elements added at one place of an array (`/-`, or before the same original element) keep their order;
 * - adding a key that exists replaces its value; of duplicate keys `replace` concerns the last, `remove` all.
 *
 * Throws SpliceConflict where a pointer's target (for `add`: its parent) does not exist, JsonSyntaxError where `json` is
 * not JSON, TypeError where a value has no JSON form or a text edit's node is no string of this document.
 */
export function spliceJson(buf: Buffer, root: JsonNode, edits: readonly JsonEdit[]): Buffer {
  const splice = new Splice(root);
  for (const edit of edits) {
    if (edit.kind === "text") splice.setText(edit.node, edit.text);
    else if (edit.op === "remove") splice.remove(edit.pointer);
    else
      splice.put(
        edit.op,
        edit.pointer,
        edit.kind === "raw" ? rawJson(edit.json) : encode(edit.value, edit.pointer),
      );
  }
  return apply(buf, splice.cuts());
}

/** A literal with a bad escape has no text; any is another one. */
function hasText(node: JsonNode, text: string): boolean {
  if (node.kind !== "string") throw new TypeError(`a text edit's node must be a string, not a ${node.kind}`);
  try {
    return node.text() === text;
  } catch {
    return false;
  }
}

function encode(value: unknown, pointer: string): Buffer {
  const text = JSON.stringify(value) as string | undefined;
  if (text === undefined) throw new TypeError(`the value for ${pointer} has no JSON form: ${typeof value}`);
  return Buffer.from(text);
}

function rawJson(json: Buffer | string): Buffer {
  const buf = typeof json === "string" ? Buffer.from(json) : json;
  const { start, end } = parseIndex(buf);
  return buf.subarray(start, end);
}

class Splice {
  private readonly root: JsonNode;
  private readonly places: Places;
  /** Disjoint, in document order: a claim inside another is either refused or superseded. */
  private readonly claims: Claim[] = [];
  /** By the start of the container. */
  private readonly additions = new Map<number, Additions>();

  constructor(root: JsonNode) {
    this.root = root;
    this.places = new Places(root);
  }

  setText(node: JsonNode, text: string): void {
    if (node.start < this.root.start || node.end > this.root.end) {
      throw new TypeError("a text edit's node must be of the document that is spliced");
    }
    const bytes = hasText(node, text) ? null : encode(text, "");
    this.claim({ node, bytes, removedFrom: undefined }, undefined);
  }

  put(op: "add" | "replace", pointer: string, bytes: Buffer): void {
    const { parent, token } = this.locate(pointer);
    if (parent === undefined) {
      this.claim({ node: this.root, bytes, removedFrom: undefined }, pointer);
      return;
    }
    if (parent.kind === "array") {
      if (op === "add") this.addElement(parent, token, pointer, bytes);
      else this.claim({ node: elementAt(parent, token, pointer), bytes, removedFrom: undefined }, pointer);
      return;
    }
    const node = parent.get(token);
    if (node !== undefined) {
      this.claim({ node, bytes, removedFrom: undefined }, pointer);
      return;
    }
    if (op === "replace" && !this.additions.get(parent.start)?.members.has(token)) {
      throw new SpliceConflict(pointer, "there is no such key");
    }
    this.additionsTo(parent, pointer).members.set(token, bytes);
  }

  remove(pointer: string): void {
    const { parent, token } = this.locate(pointer);
    if (parent === undefined) throw new SpliceConflict(pointer, "the whole document cannot be removed");
    if (parent.kind === "array") {
      const node = elementAt(parent, token, pointer);
      this.claim({ node, bytes: null, removedFrom: parent }, pointer);
      return;
    }
    if (this.additions.get(parent.start)?.members.delete(token)) return;
    const members = parent.entries().filter((member) => member.isNamed(token));
    if (members.length === 0) throw new SpliceConflict(pointer, "there is no such key");
    for (const { value } of members) this.claim({ node: value, bytes: null, removedFrom: parent }, pointer);
  }

  /** The edits' cuts, disjoint and in document order. */
  cuts(): Cut[] {
    const cuts: Cut[] = [];
    const removed = new Set<number>();
    const containers = new Map<number, JsonNode>();
    for (const { node, bytes, removedFrom } of this.claims) {
      if (removedFrom !== undefined) {
        removed.add(node.start);
        containers.set(removedFrom.start, removedFrom);
      } else if (bytes !== null) {
        cuts.push({ start: node.start, end: node.end, pieces: [bytes] });
      }
    }
    for (const { container } of this.additions.values()) containers.set(container.start, container);
    for (const container of containers.values()) {
      cuts.push(...gapCuts(container, removed, this.additions.get(container.start)));
    }
    // An insertion before a value that is itself replaced starts where that does, and comes first.
    return cuts.sort((a, b) => a.start - b.start || a.end - b.end);
  }

  /** The container that holds the pointer's target, and the target's token in it; no container for the root. */
  private locate(pointer: string): { parent: JsonNode | undefined; token: string } {
    const { parent, token } = this.places.holder(pointer);
    if (token === undefined) return { parent: undefined, token: "" };
    if (parent === undefined) throw new SpliceConflict(pointer, "its parent does not exist");
    if (parent.kind !== "array" && parent.kind !== "object") {
      throw new SpliceConflict(pointer, `its parent is a ${parent.kind}, not an object or array`);
    }
    return { parent, token };
  }

  private addElement(array: JsonNode, token: string, pointer: string, bytes: Buffer): void {
    const { length } = array.items();
    const index = token === "-" ? length : arrayIndex(token);
    if (index < 0 || index > length) {
      throw new SpliceConflict(
        pointer,
        `the array has ${length} elements: expected an index up to ${length}, or -`,
      );
    }
    const { elements } = this.additionsTo(array, pointer);
    const there = elements.get(index);
    if (there === undefined) elements.set(index, [bytes]);
    else there.push(bytes);
  }

  private additionsTo(container: JsonNode, pointer: string): Additions {
    const claim = this.claims[this.indexBehind(container.start) - 1];
    if (claim !== undefined && container.end <= claim.node.end) throw insideEdited(pointer);
    let additions = this.additions.get(container.start);
    if (additions === undefined) {
      additions = { container, members: new Map(), elements: new Map() };
      this.additions.set(container.start, additions);
    }
    return additions;
  }

  private claim(claim: Claim, pointer: string | undefined): void {
    const { start, end } = claim.node;
    const behind = this.indexBehind(start);
    const before = this.claims[behind - 1];
    if (before !== undefined && end <= before.node.end && before.node.start < start) {
      throw insideEdited(pointer ?? pointerTo(this.root, claim.node));
    }
    const from = before?.node.start === start ? behind - 1 : behind;
    let to = behind;
    while (to < this.claims.length && this.claims[to]!.node.start < end) to++;
    this.claims.splice(from, to - from, claim);
    for (const at of this.additions.keys()) {
      if (at >= start && at < end) this.additions.delete(at);
    }
  }

  /** The index of the first claim that starts behind `offset`. */
  private indexBehind(offset: number): number {
    let low = 0;
    let high = this.claims.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.claims[middle]!.node.start <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function insideEdited(pointer: string): SpliceConflict {
  return new SpliceConflict(pointer, "an earlier edit replaced or removed what it is in");
}

function elementAt(array: JsonNode, token: string, pointer: string): JsonNode {
  const node = array.at(arrayIndex(token));
  if (node === undefined) {
    throw new SpliceConflict(pointer, `the array has ${array.items().length} elements, none at ${token}`);
  }
  return node;
}

/** A pointer to `node`, for an error message; of duplicate keys it cannot tell which one. */
function pointerTo(root: JsonNode, node: JsonNode): string {
  let pointer = "";
  let at = root;
  const holds = (value: JsonNode) => value.start <= node.start && node.end <= value.end;
  while (at.start !== node.start) {
    const index = at.items().findIndex(holds);
    const member = at.entries().find(({ value }) => holds(value));
    const inner = member?.value ?? at.at(index);
    if (inner === undefined) break;
    pointer += `/${member === undefined ? index : member.key.replaceAll("~", "~0").replaceAll("/", "~1")}`;
    at = inner;
  }
  return pointer;
}

/**
 * The cuts that take the removed children out of a container and put the added ones in. Between each two neighbours that
 * stay, at most one cut: it keeps the first one's comma and puts a comma behind everything new; behind the last
 * child that stays, where no comma follows, the comma goes before.
 */
function gapCuts(container: JsonNode, removed: ReadonlySet<number>, additions: Additions | undefined): Cut[] {
  const children =
    container.kind === "array"
      ? container.items().map((value) => ({ start: value.start, value }))
      : container.entries().map(({ keyStart, value }) => ({ start: keyStart, value }));
  const cuts: Cut[] = [];
  let added: (Buffer | string)[][] = [];
  let firstRemoved: number | undefined;
  let lastRemovedEnd = 0;
  let keptEnd: number | undefined;
  for (const [index, { start, value }] of children.entries()) {
    for (const bytes of additions?.elements.get(index) ?? []) added.push([bytes]);
    if (removed.has(value.start)) {
      firstRemoved ??= start;
      lastRemovedEnd = value.end;
      continue;
    }
    if (added.length > 0 || firstRemoved !== undefined) {
      cuts.push({
        start: firstRemoved ?? start,
        end: start,
        pieces: added.flatMap((piece) => [...piece, ","]),
      });
    }
    added = [];
    firstRemoved = undefined;
    keptEnd = value.end;
  }
  for (const bytes of additions?.elements.get(children.length) ?? []) added.push([bytes]);
  for (const [key, bytes] of additions?.members ?? []) added.push([`${JSON.stringify(key)}:`, bytes]);
  if (keptEnd !== undefined) {
    if (added.length > 0 || firstRemoved !== undefined) {
      const end = firstRemoved === undefined ? keptEnd : lastRemovedEnd;
      cuts.push({ start: keptEnd, end, pieces: added.flatMap((piece) => [",", ...piece]) });
    }
  } else if (added.length > 0 || firstRemoved !== undefined) {
    // Nothing stays: what is left is the brackets and what is new, without the white space that was between.
    const pieces = added.flatMap((piece, index) => (index === 0 ? piece : [",", ...piece]));
    cuts.push({ start: container.start + 1, end: container.end - 1, pieces });
  }
  return cuts;
}

function apply(buf: Buffer, cuts: readonly Cut[]): Buffer {
  if (cuts.length === 0) return buf;
  const parts: Buffer[] = [];
  let from = 0;
  for (const { start, end, pieces } of cuts) {
    parts.push(buf.subarray(from, start));
    for (const piece of pieces) parts.push(typeof piece === "string" ? Buffer.from(piece) : piece);
    from = end;
  }
  parts.push(buf.subarray(from));
  return Buffer.concat(parts);
}

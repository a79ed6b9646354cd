import assert from "node:assert/strict";
import { type JsonNode, parseIndex, pointerTokens } from "../../plugin-sdk/src/json-index.ts";
import type { JsonEdit } from "../../plugin-sdk/src/json-splice.ts";

interface Child {
  /** The key's literal, for members; "" for elements. */
  readonly key: string;
  readonly start: number;
  readonly item: Item;
}

/** An original value and what has been done to it. */
interface Item {
  readonly node: JsonNode;
  readonly parent: Item | undefined;
  readonly children: Child[];
  newSource: string | undefined;
  isRemoved: boolean;
  /** New elements by the original index that they precede, or new members by key. */
  added: Map<number | string, string[]>;
}

/**
 * The rules of `spliceJson` in the plainest form: a tree of the original's values, marked by one edit after the other. It
 * makes no bytes; it checks a result against the marks, and against the original wherever there are none.
 */
export class SpliceModel {
  private readonly root: Item;

  constructor(root: JsonNode) {
    this.root = itemOf(root, undefined);
  }

  /** Marks what the edit does; false where it has to be refused, with nothing marked. */
  apply(edit: JsonEdit): boolean {
    if (edit.kind === "text") {
      const target = findNode(this.root, edit.node)!;
      const isSame = (JSON.parse(edit.node.raw()) as string) === edit.text;
      return this.mark([target], isSame ? undefined : JSON.stringify(edit.text), false);
    }
    const source = edit.kind === "raw" ? edit.json.toString().trim() : JSON.stringify(edit.value);
    const tokens = pointerTokens(edit.pointer);
    const token = tokens.pop();
    if (token === undefined) return edit.op !== "remove" && this.mark([this.root], source, false);
    let parent: Item | undefined = this.root;
    for (const step of tokens) parent = parent && childrenAt(parent, step).at(-1);
    if (parent === undefined) return false;
    const targets = childrenAt(parent, token);
    const isArray = parent.node.kind === "array";
    if (edit.op === "remove" && targets.length > 0) return this.mark(targets, undefined, true);
    if (targets.length > 0 && !(isArray && edit.op === "add"))
      return this.mark(targets.slice(-1), source, false);
    const place = isArray && token === "-" ? parent.children.length : isArray ? Number(token) : token;
    if (edit.op !== "add" && (isArray || !parent.added.has(place))) return false;
    if (isArray ? !((place as number) <= parent.children.length) : parent.node.kind !== "object")
      return false;
    if (isGone(parent)) return false;
    if (edit.op === "remove") parent.added.delete(place);
    else if (isArray) parent.added.set(place, [...(parent.added.get(place) ?? []), source]);
    else parent.added.set(place, [source]);
    return true;
  }

  assertMatches(before: Buffer, after: Buffer): void {
    const result = parseIndex(after);
    const { node } = this.root;
    assert.equal(after.toString("latin1", 0, result.start), before.toString("latin1", 0, node.start));
    assert.equal(after.toString("latin1", result.end), before.toString("latin1", node.end));
    assertItem(this.root, result, before, after);
  }

  private mark(targets: readonly Item[], newSource: string | undefined, isRemoved: boolean): boolean {
    for (const target of targets) {
      if (target.parent !== undefined && isGone(target.parent)) return false;
    }
    for (const target of targets) {
      target.newSource = newSource;
      target.isRemoved = isRemoved;
    }
    return true;
  }
}

function itemOf(node: JsonNode, parent: Item | undefined): Item {
  const item: Item = { node, parent, children: [], newSource: undefined, isRemoved: false, added: new Map() };
  for (const value of node.items())
    item.children.push({ key: "", start: value.start, item: itemOf(value, item) });
  for (const { key, keyStart, value } of node.entries()) {
    item.children.push({ key, start: keyStart, item: itemOf(value, item) });
  }
  return item;
}

function childrenAt(item: Item, token: string): Item[] {
  const isThere = ({ key }: Child, index: number) =>
    (item.node.kind === "array" ? String(index) : key) === token;
  return item.children.filter(isThere).map((child) => child.item);
}

function findNode(item: Item, node: JsonNode): Item | undefined {
  if (item.node.start === node.start) return item;
  for (const child of item.children) {
    const found = findNode(child.item, node);
    if (found !== undefined) return found;
  }
  return undefined;
}

function isGone(item: Item): boolean {
  for (let at: Item | undefined = item; at !== undefined; at = at.parent) {
    if (at.isRemoved || at.newSource !== undefined) return true;
  }
  return false;
}

/** What a container is to hold: originals that stay, and new ones as source text. */
type Expected =
  | { readonly child: Child; readonly index: number }
  | { readonly key: string; readonly source: string };

function assertItem(item: Item, result: JsonNode, before: Buffer, after: Buffer): void {
  if (item.newSource !== undefined) {
    assert.equal(result.raw(), item.newSource);
    return;
  }
  if (item.children.length === 0 && item.added.size === 0) {
    assert.equal(result.raw(), item.node.raw());
    return;
  }
  const expected: Expected[] = [];
  for (const [index, child] of item.children.entries()) {
    for (const source of item.added.get(index) ?? []) expected.push({ key: "", source });
    if (!child.item.isRemoved) expected.push({ child, index });
  }
  for (const [key, sources] of item.added) {
    if (key === item.children.length) for (const source of sources) expected.push({ key: "", source });
    if (typeof key === "string") for (const source of sources) expected.push({ key, source });
  }
  const found: { key: string; start: number; value: JsonNode }[] = [
    ...result.items().map((value) => ({ key: "", start: value.start, value })),
    ...result.entries().map(({ key, keyStart, value }) => ({ key, start: keyStart, value })),
  ];
  assert.equal(found.length, expected.length);
  for (const [at, want] of expected.entries()) {
    const { key, start, value } = found[at]!;
    if ("source" in want) {
      assert.deepEqual([key, value.raw()], [want.key, want.source]);
      continue;
    }
    assertItem(want.child.item, value, before, after);
    const original = want.child.item.node;
    assert.equal(
      after.toString("latin1", start, value.start),
      before.toString("latin1", want.child.start, original.start),
      "the key and what is between it and the value",
    );
    const previous = expected[at - 1];
    if (previous !== undefined && "child" in previous && previous.index === want.index - 1) {
      assert.equal(
        after.toString("latin1", found[at - 1]!.value.end, start),
        before.toString("latin1", previous.child.item.node.end, want.child.start),
        "what is between two neighbours that stay",
      );
    }
  }
  if (!expected.some((want) => "child" in want)) return;
  const last = item.children.at(-1)!.item.node;
  assert.equal(
    after.toString("latin1", result.start, found[0]!.start),
    before.toString("latin1", item.node.start, item.children[0]!.start),
    "what is before the first",
  );
  assert.equal(
    after.toString("latin1", found.at(-1)!.value.end, result.end),
    before.toString("latin1", last.end, item.node.end),
    "what is behind the last",
  );
}

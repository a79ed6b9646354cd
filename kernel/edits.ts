import {
  type JsonEdit,
  type JsonNode,
  type JsonPatch,
  Places,
  parseIndex,
  requestBodies,
  type Segment,
  SpliceConflict,
  spliceJson,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import type { PluginHandle } from "./hooks/plugin-handle.ts";
import { SegmentState } from "./segment.ts";

/** An edit with the plugin that made it. */
interface Owned {
  readonly edit: JsonEdit;
  readonly pointer: string;
  /** What the value at `pointer` reads as after it, where that is a text. */
  readonly text: string | undefined;
  readonly plugin: PluginHandle;
}

/**
 * The edits of one request's JSON body. Reading is lazy; nothing is parsed for a request that nobody inspects. The
 * original bytes never change; `apply` splices.
 */
export class Edits {
  readonly #body: Buffer;
  readonly #exchangeId: string;
  readonly #under: Edits | undefined;
  #root: JsonNode | undefined;
  #places: Places | undefined;
  #list: Owned[] = [];
  #texts: Map<string, string> | undefined;
  /** Pointers to what edits replaced or removed; undefined until somebody asks. */
  #gone: Set<string> | undefined;

  /** `under`: those of the same body that these come over. */
  constructor(body: Buffer, exchangeId: string, under?: Edits) {
    this.#body = body;
    this.#exchangeId = exchangeId;
    this.#under = under;
  }
  /** The index of the body. Throws TM_EDIT_IMPOSSIBLE where it is not JSON. */
  get root(): JsonNode {
    if (this.#under !== undefined) return this.#under.root;
    if (this.#root === undefined) {
      try {
        this.#root = parseIndex(this.#body, requestBodies);
      } catch (cause) {
        throw new TokenmanError("TM_EDIT_IMPOSSIBLE", "the request's body is not JSON", { cause });
      }
    }
    return this.#root;
  }
  get count(): number {
    return this.#list.length;
  }
  /** A segment's text after the edits so far; undefined where none touched it. */
  textOf(pointer: string): string | undefined {
    return this.#texts?.get(pointer);
  }
  /** Whether no edit replaced or removed the value, or what it is in; a change of a text leaves it standing. */
  stands(pointer: string): boolean {
    if (this.#gone === undefined) {
      this.#gone = new Set();
      for (const { edit, pointer: at } of this.#list) {
        // What is added to an array stands beside what is there.
        const isBeside = (): boolean => this.#find(at.slice(0, at.lastIndexOf("/")))?.kind === "array";
        if (edit.kind !== "text" && (edit.op !== "add" || !isBeside())) this.#gone.add(at);
      }
    }
    if (this.#gone.size === 0) return true;
    if (this.#gone.has("")) return false;
    for (let end = pointer.indexOf("/", 1); end > 0; end = pointer.indexOf("/", end + 1))
      if (this.#gone.has(pointer.slice(0, end))) return false;
    return !this.#gone.has(pointer);
  }
  setText(segment: Segment, text: string, plugin: PluginHandle): void {
    if (!(segment instanceof SegmentState) || !segment.isOf(this))
      throw new TokenmanError("TM_EDIT_IMPOSSIBLE", "the segment is none of this request's");
    if (typeof text !== "string")
      throw new TokenmanError("TM_EDIT_IMPOSSIBLE", `a segment's text is a string, not ${typeof text}`);
    if (segment.sealed)
      throw new TokenmanError("TM_SEGMENT_SEALED", `${segment.pointer} is signed and must not be changed`);
    if (text === segment.text) return;
    const { node, pointer } = segment;
    if (node.kind === "string") this.#add({ edit: { kind: "text", node, text }, pointer, text, plugin });
    else {
      assertJson(text, pointer);
      this.#add({ edit: { kind: "raw", op: "replace", pointer, json: text }, pointer, text, plugin });
    }
  }
  /** All of them or, where one throws, none. The values are taken as they are now. */
  patch(patches: readonly JsonPatch[], plugin: PluginHandle): void {
    const before = this.count;
    try {
      for (const patch of patches) this.#patch(patch, plugin);
    } catch (cause) {
      this.rollback(before);
      throw cause;
    }
  }
  #patch({ op, pointer, value, json }: JsonPatch, plugin: PluginHandle): void {
    const place = op === "add" ? pointer.slice(0, Math.max(0, pointer.lastIndexOf("/"))) : pointer;
    if (this.#find(place) === undefined) {
      throw new TokenmanError(
        "TM_EDIT_IMPOSSIBLE",
        `cannot ${op} ${pointer}: the body has no ${place === "" ? "root" : place}`,
      );
    }
    if (op === "remove")
      this.#add({ edit: { kind: "patch", op, pointer }, pointer, text: undefined, plugin });
    else {
      const known = json === undefined ? value : assertJson(json, pointer);
      const text = typeof known === "string" ? known : undefined;
      const edit = { kind: "raw", op, pointer, json: json ?? encode(value, pointer) } as const;
      this.#add({ edit, pointer, text, plugin });
    }
  }
  rollback(count: number): void {
    if (this.#list.length <= count) return;
    this.#keep(this.#list.slice(0, count));
  }
  /**
   * The body with these edits, and `over` applied on top. Where two plugins contradict each other, the later one fails:
   * one that fails open loses its edits, here and from now on; for one that fails closed it throws TM_EDIT_CONFLICT.
   */
  apply(over?: Edits): Buffer {
    const all = over === undefined ? this.#list : [...this.#list, ...over.#list];
    if (all.length === 0) return this.#body;
    try {
      return this.#splice(all);
    } catch (cause) {
      if (!(cause instanceof SpliceConflict)) throw cause;
      return this.#applyApart(all, over);
    }
  }
  #splice(edits: readonly Owned[]): Buffer {
    return spliceJson(
      this.#body,
      this.root,
      edits.map((owned) => owned.edit),
    );
  }
  /** Plugin by plugin, to find out whose edits do not go with those before them. */
  #applyApart(all: readonly Owned[], over: Edits | undefined): Buffer {
    let accepted: readonly Owned[] = [];
    let result = this.#body;
    for (let from = 0; from < all.length; ) {
      const { plugin } = all[from]!;
      let to = from;
      while (to < all.length && all[to]!.plugin === plugin) to++;
      const tried = [...accepted, ...all.slice(from, to)];
      try {
        result = this.#splice(tried);
        accepted = tried;
      } catch (cause) {
        if (!(cause instanceof SpliceConflict)) throw cause;
        plugin.failed("edit", cause, this.#exchangeId);
        if (plugin.onError === "closed") {
          const message = `${plugin.name}: ${cause.message}`;
          throw new TokenmanError("TM_EDIT_CONFLICT", message, { cause, plugin: plugin.name });
        }
      }
      from = to;
    }
    const kept = new Set(accepted);
    this.#keep(this.#list.filter((owned) => kept.has(owned)));
    if (over !== undefined) over.#keep(over.#list.filter((owned) => kept.has(owned)));
    return result;
  }
  #find(pointer: string): JsonNode | undefined {
    try {
      this.#places ??= new Places(this.root);
      return this.#places.find(pointer);
    } catch (cause) {
      throw new TokenmanError("TM_EDIT_IMPOSSIBLE", `${pointer} is not a JSON pointer into the body`, {
        cause,
      });
    }
  }
  #add(owned: Owned): void {
    this.#list.push(owned);
    this.#gone = undefined;
    this.#note(owned);
  }
  #note({ pointer, text }: Owned): void {
    if (text !== undefined) {
      this.#texts ??= new Map();
      this.#texts.set(pointer, text);
    }
  }
  #keep(list: Owned[]): void {
    this.#list = list;
    this.#texts = undefined;
    this.#gone = undefined;
    for (const owned of list) this.#note(owned);
  }
}

function assertJson(text: string, pointer: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new TokenmanError(
      "TM_EDIT_IMPOSSIBLE",
      `the new text of ${pointer} is not JSON, which its place demands`,
      { cause },
    );
  }
}

function encode(value: unknown, pointer: string): string {
  let json: string | undefined;
  try {
    json = JSON.stringify(value);
  } catch (cause) {
    throw new TokenmanError("TM_EDIT_IMPOSSIBLE", `the value for ${pointer} has no JSON form`, { cause });
  }
  if (json === undefined)
    throw new TokenmanError(
      "TM_EDIT_IMPOSSIBLE",
      `the value for ${pointer} has no JSON form: ${typeof value}`,
    );
  return json;
}

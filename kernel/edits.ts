import crypto from "node:crypto";
import {
  type JsonEdit,
  type JsonNode,
  type JsonPatch,
  parseIndex,
  type Segment,
  type SegmentSpan,
  SpliceConflict,
  spliceJson,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import type { PluginHandle } from "./plugin-handle.ts";

/** An edit with the plugin that made it. */
interface Owned {
  readonly edit: JsonEdit;
  readonly pointer: string;
  readonly plugin: PluginHandle | undefined;
}

/**
 * The edits of one request's JSON body. Reading is lazy; nothing is parsed for a request that nobody inspects. The
 * original bytes never change; `apply` splices.
 */
export class Edits {
  readonly #body: Buffer;
  #root: JsonNode | undefined;
  #list: Owned[] = [];
  #texts: Map<string, string> | undefined;

  constructor(body: Buffer) {
    this.#body = body;
  }
  /** The index of the body. Throws TM_EDIT_IMPOSSIBLE where it is not JSON. */
  get root(): JsonNode {
    if (this.#root === undefined) {
      try {
        this.#root = parseIndex(this.#body);
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
  setText(segment: Segment, text: string, plugin: PluginHandle | undefined): void {
    if (segment.sealed)
      throw new TokenmanError("TM_SEGMENT_SEALED", `${segment.pointer} is signed and must not be changed`);
    if (text === segment.text) return;
    const { node, pointer } = segment;
    if (node.kind === "string") this.#add({ edit: { kind: "text", node, text }, pointer, plugin });
    else {
      assertJson(text, pointer);
      this.#add({ edit: { kind: "raw", op: "replace", pointer, json: text }, pointer, plugin });
    }
    this.#texts ??= new Map();
    this.#texts.set(pointer, text);
  }
  patch(patches: readonly JsonPatch[], plugin: PluginHandle | undefined): void {
    for (const { op, pointer, value } of patches) {
      const place = op === "add" ? pointer.slice(0, Math.max(0, pointer.lastIndexOf("/"))) : pointer;
      if (this.#find(place) === undefined) {
        throw new TokenmanError(
          "TM_EDIT_IMPOSSIBLE",
          `cannot ${op} ${pointer}: the body has no ${place === "" ? "root" : place}`,
        );
      }
      this.#add({ edit: { kind: "patch", op, pointer, value }, pointer, plugin });
    }
  }
  rollback(count: number): void {
    if (this.#list.length === count) return;
    this.#list.length = count;
    this.#texts = undefined;
    for (const { edit, pointer } of this.#list) {
      const text = edit.kind === "text" ? edit.text : edit.kind === "raw" ? String(edit.json) : undefined;
      if (text === undefined) continue;
      this.#texts ??= new Map();
      this.#texts.set(pointer, text);
    }
  }
  /**
   * The body with these edits, and `over` applied on top. Where two plugins contradict each other, the later one fails
   * and, if it fails open, its edits are left out. Throws TM_EDIT_CONFLICT for one that fails closed.
   */
  apply(over?: Edits): Buffer {
    const all = over === undefined ? this.#list : [...this.#list, ...over.#list];
    if (all.length === 0) return this.#body;
    try {
      return spliceJson(
        this.#body,
        this.root,
        all.map((owned) => owned.edit),
      );
    } catch (cause) {
      if (!(cause instanceof SpliceConflict) && !(cause instanceof TypeError)) throw cause;
      return this.#applyApart(all);
    }
  }
  #applyApart(all: readonly Owned[]): Buffer {
    let accepted: JsonEdit[] = [];
    let result = this.#body;
    for (let from = 0; from < all.length; ) {
      const { plugin } = all[from]!;
      let to = from;
      while (to < all.length && all[to]!.plugin === plugin) to++;
      const tried = [...accepted, ...all.slice(from, to).map((owned) => owned.edit)];
      try {
        result = spliceJson(this.#body, this.root, tried);
        accepted = tried;
      } catch (cause) {
        plugin?.failed("edit", cause);
        if (plugin === undefined || plugin.onError === "closed") {
          throw new TokenmanError("TM_EDIT_CONFLICT", cause instanceof Error ? cause.message : undefined, {
            cause,
          });
        }
      }
      from = to;
    }
    return result;
  }
  #find(pointer: string): JsonNode | undefined {
    try {
      return this.root.find(pointer);
    } catch (cause) {
      throw new TokenmanError("TM_EDIT_IMPOSSIBLE", `${pointer} is not a JSON pointer into the body`, {
        cause,
      });
    }
  }
  #add(owned: Owned): void {
    this.#list.push(owned);
  }
}

/** A segment with its text and hash worked out at first use. */
export class SegmentState implements Segment {
  readonly pointer: string;
  readonly role: Segment["role"];
  readonly kind: Segment["kind"];
  readonly message: number;
  readonly sealed: boolean;
  readonly tool?: string;
  readonly node: JsonNode;
  readonly #body: Buffer;
  readonly #edits: Edits;
  #original: string | undefined;
  #hash: string | undefined;

  constructor(span: SegmentSpan, body: Buffer, edits: Edits) {
    this.pointer = span.pointer;
    this.role = span.role;
    this.kind = span.kind;
    this.message = span.message;
    this.sealed = span.sealed;
    if (span.tool !== undefined) this.tool = span.tool;
    this.node = span.node;
    this.#body = body;
    this.#edits = edits;
  }
  get text(): string {
    const edited = this.#edits.textOf(this.pointer);
    if (edited !== undefined) return edited;
    this.#original ??= this.node.kind === "string" ? this.node.text() : this.node.raw();
    return this.#original;
  }
  get hash(): string {
    this.#hash ??= crypto.hash("sha256", this.#body.subarray(this.node.start, this.node.end), "base64url");
    return this.#hash;
  }
}

function assertJson(text: string, pointer: string): void {
  try {
    JSON.parse(text);
  } catch (cause) {
    throw new TokenmanError(
      "TM_EDIT_IMPOSSIBLE",
      `the new text of ${pointer} is not JSON, which its place demands`,
      { cause },
    );
  }
}

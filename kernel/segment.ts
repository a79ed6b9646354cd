import crypto from "node:crypto";
import { type JsonNode, nodeAt, type Segment, type SegmentSpan } from "@tokenman/plugin-sdk";
import type { Edits } from "./edits.ts";

/** A segment with its text and hash worked out at first use. */
export class SegmentState implements Segment {
  readonly pointer: string;
  readonly role: Segment["role"];
  readonly kind: Segment["kind"];
  readonly message: number;
  readonly sealed: boolean;
  readonly tool?: string;
  readonly #span: SegmentSpan;
  readonly #body: Buffer;
  readonly #edits: Edits;
  #node: JsonNode | undefined;
  #original: string | undefined;

  constructor(span: SegmentSpan, body: Buffer, edits: Edits) {
    this.pointer = span.pointer;
    this.role = span.role;
    this.kind = span.kind;
    this.message = span.message;
    this.sealed = span.sealed;
    if (span.tool !== undefined) this.tool = span.tool;
    this.#span = span;
    this.#body = body;
    this.#edits = edits;
  }
  isOf(edits: Edits): boolean {
    return this.#edits === edits;
  }
  get node(): JsonNode {
    this.#node ??= nodeAt(this.#body, this.#span.start, this.#span.end);
    return this.#node;
  }
  get byteLength(): number {
    return this.#span.end - this.#span.start;
  }
  get text(): string {
    const edited = this.#edits.textOf(this.pointer);
    if (edited !== undefined) return edited;
    this.#original ??= this.node.kind === "string" ? decoded(this.node) : this.node.raw();
    return this.#original;
  }
  get hash(): string {
    const span = this.#span;
    span.hash ??= crypto.hash("sha256", this.#body.subarray(span.start, span.end), "base64url");
    return span.hash;
  }
}

/** A client may send an escape that is none. That is its source's text then: it must not count as a plugin's failure. */
function decoded(node: JsonNode): string {
  try {
    return node.text();
  } catch {
    return node.raw().slice(1, -1);
  }
}

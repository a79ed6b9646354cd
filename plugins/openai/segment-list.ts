import {
  type JsonNode,
  type SegmentKind,
  type SegmentRole,
  type SegmentSpan,
  textOf,
} from "@tokenman/plugin-sdk";

/** Where a piece of content stands: shared by all segments found in it. */
export interface Place {
  readonly role: SegmentRole;
  readonly message: number;
  readonly tool?: string;
}

/** Members of content parts that hold text, by the part's type; in Chat Completions and in Responses. */
const TEXT_PARTS: ReadonlyMap<string, string> = new Map([
  ["text", "text"],
  ["input_text", "text"],
  ["output_text", "text"],
  ["summary_text", "text"],
  ["reasoning_text", "text"],
  ["refusal", "refusal"],
]);
const ATTACHMENTS: ReadonlySet<string> = new Set([
  "image_url",
  "input_audio",
  "file",
  "input_image",
  "input_file",
  "computer_screenshot",
]);

/** Collects the segments of one body. */
export class SegmentList {
  readonly spans: SegmentSpan[] = [];
  /** Names of the tools called so far, by the call's id: a result names only that id. */
  readonly #calls = new Map<string, string>();

  add(node: JsonNode | undefined, pointer: string, kind: SegmentKind, place: Place, sealed = false): void {
    if (node !== undefined && node.kind !== "null")
      this.spans.push({ pointer, kind, sealed, node, ...place });
  }

  member(
    holder: JsonNode,
    pointer: string,
    key: string,
    kind: SegmentKind,
    place: Place,
    sealed = false,
  ): void {
    this.add(holder.get(key), `${pointer}/${key}`, kind, place, sealed);
  }

  definition(tool: JsonNode, pointer: string): void {
    const name = textOf(
      tool.get("function")?.get("name") ?? tool.get("custom")?.get("name") ?? tool.get("name"),
    );
    this.add(tool, pointer, "tool-definition", { role: "other", message: -1, ...named(name) });
  }

  /** A string, or an array of parts; its plain text is of `kind`. */
  content(
    node: JsonNode | undefined,
    pointer: string,
    kind: SegmentKind,
    place: Place,
    sealed = false,
  ): void {
    if (node?.kind !== "array") {
      this.add(node, pointer, node?.kind === "string" ? kind : "other", place, sealed);
      return;
    }
    for (const [index, part] of node.items().entries()) {
      const type = textOf(part.get("type")) ?? "";
      const key = TEXT_PARTS.get(type);
      const at = `${pointer}/${index}`;
      if (key !== undefined) this.member(part, at, key, kind, place, sealed);
      else if (part.kind === "string") this.add(part, at, kind, place, sealed);
      else
        this.add(part, at, ATTACHMENTS.has(type) ? "attachment" : "other", place, sealed || isSigned(part));
    }
  }

  /** A tool call: `key` holds its arguments. */
  call(holder: JsonNode, pointer: string, key: string, place: Place, id: string | undefined): void {
    const tool = textOf(holder.get("name"));
    if (tool !== undefined && id !== undefined) this.#calls.set(id, tool);
    this.member(holder, pointer, key, "tool-call", { ...place, ...named(tool) });
  }

  /** A tool's result, of the call `id`. */
  result(node: JsonNode | undefined, pointer: string, message: number, id: string | undefined): void {
    const tool = id === undefined ? undefined : this.#calls.get(id);
    this.content(node, pointer, "tool-result", { role: "tool", message, ...named(tool) });
  }
}

/** Whether a value carries signed or encrypted content, which must come back as it was given. */
export function isSigned(node: JsonNode): boolean {
  return node.get("encrypted_content") !== undefined || node.get("signature") !== undefined;
}

export function named(tool: string | undefined): { readonly tool?: string } {
  return tool === undefined ? {} : { tool };
}

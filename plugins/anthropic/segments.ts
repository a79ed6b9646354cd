import {
  type JsonNode,
  parseIndex,
  type SegmentKind,
  type SegmentRole,
  type SegmentSpan,
  textOf,
} from "@tokenman/plugin-sdk";

/**
 * The text of a Messages body in the order in which the provider reads it: tools, system, messages. What is not
 * understood is listed whole, as "other". Empty where the body is not JSON.
 */
export function segments(body: Buffer): readonly SegmentSpan[] {
  try {
    const root = parseIndex(body);
    return new SegmentList().read(root);
  } catch {
    return [];
  }
}

/** Where a piece of content stands: shared by all segments found in it. */
interface Place {
  readonly role: SegmentRole;
  readonly message: number;
  readonly tool?: string;
}

class SegmentList {
  readonly #spans: SegmentSpan[] = [];
  /** Names of the tools called so far, by the call's id: a result names only that id. */
  readonly #calls = new Map<string, string>();

  read(root: JsonNode): readonly SegmentSpan[] {
    for (const [index, tool] of (root.get("tools")?.items() ?? []).entries()) {
      const name = textOf(tool.get("name"));
      this.#add(tool, `/tools/${index}`, "tool-definition", { role: "other", message: -1, ...named(name) });
    }
    const system = root.get("system");
    if (system !== undefined) this.#content(system, "/system", "system", { role: "system", message: -1 });
    for (const [index, message] of (root.get("messages")?.items() ?? []).entries()) {
      const role = roleOf(textOf(message.get("role")));
      const content = message.get("content");
      if (content === undefined) continue;
      const kind = role === "system" ? "system" : "text";
      this.#content(content, `/messages/${index}/content`, kind, { role, message: index });
    }
    return this.#spans;
  }

  #add(node: JsonNode | undefined, pointer: string, kind: SegmentKind, place: Place, sealed = false): void {
    if (node !== undefined && node.kind !== "null")
      this.#spans.push({ pointer, kind, sealed, node, ...place });
  }

  /** A string, or an array of blocks; its plain text is of `kind`. */
  #content(content: JsonNode, pointer: string, kind: SegmentKind, place: Place): void {
    if (content.kind === "array") {
      for (const [index, block] of content.items().entries())
        this.#block(block, `${pointer}/${index}`, kind, place);
    } else this.#add(content, pointer, content.kind === "string" ? kind : "other", place);
  }

  #block(block: JsonNode, pointer: string, kind: SegmentKind, place: Place): void {
    const type = textOf(block.get("type"));
    switch (type) {
      case "text":
        this.#member(block, pointer, "text", kind, place);
        return;
      case "tool_use":
      case "server_tool_use":
      case "mcp_tool_use": {
        const tool = textOf(block.get("name"));
        const id = textOf(block.get("id"));
        if (tool !== undefined && id !== undefined) this.#calls.set(id, tool);
        this.#member(block, pointer, "input", "tool-call", { ...place, ...named(tool) });
        return;
      }
      case "tool_result":
      case "mcp_tool_result":
        this.#result(block, pointer, place);
        return;
      case "thinking":
        this.#member(block, pointer, "thinking", "thinking", place, true);
        this.#member(block, pointer, "signature", "thinking", place, true);
        return;
      case "redacted_thinking":
        this.#member(block, pointer, "data", "thinking", place, true);
        return;
      case "image":
        this.#member(block, pointer, "source", "attachment", place);
        return;
      case "document":
        this.#document(block, pointer, place);
        return;
      case "search_result":
        this.#member(block, pointer, "title", "attachment", place);
        this.#nested(block, pointer, "attachment", place);
        return;
      default:
        this.#unknown(block, pointer, type, place);
    }
  }

  #member(
    block: JsonNode,
    pointer: string,
    key: string,
    kind: SegmentKind,
    place: Place,
    sealed = false,
  ): void {
    this.#add(block.get(key), `${pointer}/${key}`, kind, place, sealed);
  }

  #nested(block: JsonNode, pointer: string, kind: SegmentKind, place: Place): void {
    const content = block.get("content");
    if (content !== undefined) this.#content(content, `${pointer}/content`, kind, place);
  }

  #result(block: JsonNode, pointer: string, place: Place): void {
    const tool = this.#calls.get(textOf(block.get("tool_use_id")) ?? "");
    this.#nested(block, pointer, "tool-result", { ...place, role: "tool", ...named(tool) });
  }

  /** Plain text and nested blocks can be read and edited; files are listed as a whole. */
  #document(block: JsonNode, pointer: string, place: Place): void {
    this.#member(block, pointer, "title", "attachment", place);
    this.#member(block, pointer, "context", "attachment", place);
    const source = block.get("source");
    const type = textOf(source?.get("type"));
    if (source !== undefined && type === "text")
      this.#member(source, `${pointer}/source`, "data", "attachment", place);
    else if (source !== undefined && type === "content")
      this.#nested(source, `${pointer}/source`, "attachment", place);
    else this.#add(source, `${pointer}/source`, "attachment", place);
  }

  /**
   * Results of tools that the provider ran and compactions come back signed or encrypted, so they are sealed; so is
   * every block of an unknown type that carries such a member.
   */
  #unknown(block: JsonNode, pointer: string, type: string | undefined, place: Place): void {
    if (type?.endsWith("_tool_result")) {
      const tool = this.#calls.get(textOf(block.get("tool_use_id")) ?? "");
      this.#member(
        block,
        pointer,
        "content",
        "tool-result",
        { ...place, role: "tool", ...named(tool) },
        true,
      );
      return;
    }
    const isSigned = type === "compaction" || block.entries().some((member) => SIGNED.test(keyOf(member)));
    this.#add(block, pointer, "other", place, isSigned);
  }
}

const SIGNED = /^(?:signature|encrypted_)/;

function keyOf(member: { readonly key: string }): string {
  try {
    return member.key;
  } catch {
    return "";
  }
}

function named(tool: string | undefined): { readonly tool?: string } {
  return tool === undefined ? {} : { tool };
}

function roleOf(role: string | undefined): SegmentRole {
  return role === "user" || role === "assistant" || role === "system" ? role : "other";
}

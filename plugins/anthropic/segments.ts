import {
  type BodyReader,
  type JsonNode,
  listSegments,
  type SegmentKind,
  type SegmentList,
  type SegmentPlace,
  type SegmentRole,
  type SegmentSpan,
  textOf,
} from "@tokenman/plugin-sdk";

const MESSAGES = Symbol("anthropic-messages");

/**
 * The text of a Messages body in the order in which the provider reads it: tools, system, messages. What is not
 * understood is listed whole, as "other". Empty where the body is not JSON.
 */
export function segments(body: Buffer): readonly SegmentSpan[] {
  return listSegments(MESSAGES, body, read);
}

function read(body: BodyReader): void {
  body.elements("tools", (tool, index, into) => {
    const place: SegmentPlace = { role: "other", message: -1, ...named(textOf(tool.get("name"))) };
    into.add(tool, `/tools/${index}`, "tool-definition", place);
  });
  body.value("system", (system, into) =>
    new ContentReader(into).content(system, "/system", "system", { role: "system", message: -1 }),
  );
  body.elements("messages", (message, index, into) => {
    const role = roleOf(textOf(message.get("role")));
    const content = message.get("content");
    if (content === undefined) return;
    const kind = role === "system" ? "system" : "text";
    new ContentReader(into).content(content, `/messages/${index}/content`, kind, { role, message: index });
  });
}

class ContentReader {
  readonly #into: SegmentList;

  constructor(into: SegmentList) {
    this.#into = into;
  }

  /** A string, or an array of blocks; its plain text is of `kind`. */
  content(content: JsonNode, pointer: string, kind: SegmentKind, place: SegmentPlace): void {
    if (content.kind === "array") {
      for (const [index, block] of content.items().entries())
        this.#block(block, `${pointer}/${index}`, kind, place);
    } else this.#into.add(content, pointer, content.kind === "string" ? kind : "other", place);
  }

  #block(block: JsonNode, pointer: string, kind: SegmentKind, place: SegmentPlace): void {
    const into = this.#into;
    const type = textOf(block.get("type"));
    switch (type) {
      case "text":
        into.member(block, pointer, "text", kind, place);
        return;
      case "tool_use":
      case "server_tool_use":
      case "mcp_tool_use": {
        const tool = textOf(block.get("name"));
        into.called(textOf(block.get("id")), tool);
        into.member(block, pointer, "input", "tool-call", { ...place, ...named(tool) });
        return;
      }
      case "tool_result":
      case "mcp_tool_result":
        this.#result(block, pointer, place);
        return;
      case "thinking":
        into.member(block, pointer, "thinking", "thinking", place, true);
        into.member(block, pointer, "signature", "thinking", place, true);
        return;
      case "redacted_thinking":
        into.member(block, pointer, "data", "thinking", place, true);
        return;
      case "image":
        into.member(block, pointer, "source", "attachment", place);
        return;
      case "document":
        this.#document(block, pointer, place);
        return;
      case "search_result":
        into.member(block, pointer, "title", "attachment", place);
        this.#nested(block, pointer, "attachment", place);
        return;
      default:
        this.#unknown(block, pointer, type, place);
    }
  }

  #nested(block: JsonNode, pointer: string, kind: SegmentKind, place: SegmentPlace): void {
    const content = block.get("content");
    if (content !== undefined) this.content(content, `${pointer}/content`, kind, place);
  }

  #result(block: JsonNode, pointer: string, place: SegmentPlace): void {
    const tool = this.#into.toolOf(textOf(block.get("tool_use_id")));
    this.#nested(block, pointer, "tool-result", { ...place, role: "tool", ...named(tool) });
  }

  /** Plain text and nested blocks can be read and edited; files are listed as a whole. */
  #document(block: JsonNode, pointer: string, place: SegmentPlace): void {
    this.#into.member(block, pointer, "title", "attachment", place);
    this.#into.member(block, pointer, "context", "attachment", place);
    const source = block.get("source");
    const type = textOf(source?.get("type"));
    if (source !== undefined && type === "text")
      this.#into.member(source, `${pointer}/source`, "data", "attachment", place);
    else if (source !== undefined && type === "content")
      this.#nested(source, `${pointer}/source`, "attachment", place);
    else this.#into.add(source, `${pointer}/source`, "attachment", place);
  }

  /**
   * Results of tools that the provider ran and compactions come back signed or encrypted, so they are sealed; so is
   * every block of an unknown type that carries such a member.
   */
  #unknown(block: JsonNode, pointer: string, type: string | undefined, place: SegmentPlace): void {
    if (type?.endsWith("_tool_result")) {
      const tool = this.#into.toolOf(textOf(block.get("tool_use_id")));
      this.#into.member(
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
    this.#into.add(block, pointer, "other", place, isSigned);
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

import {
  type JsonNode,
  type SegmentKind,
  type SegmentList,
  type SegmentPlace,
  type SegmentRole,
  textOf,
} from "@tokenman/plugin-sdk";

/** Roles as both APIs spell them; any other is "other". */
export const ROLES: ReadonlyMap<string, SegmentRole> = new Map([
  ["system", "system"],
  ["developer", "system"],
  ["user", "user"],
  ["assistant", "assistant"],
]);

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

/** A tool's definition, in the shapes of Chat and of Responses. */
export function definition(tool: JsonNode, pointer: string, into: SegmentList): void {
  const name = textOf(
    tool.get("function")?.get("name") ?? tool.get("custom")?.get("name") ?? tool.get("name"),
  );
  into.add(tool, pointer, "tool-definition", { role: "other", message: -1, ...named(name) });
}

/** A string, or an array of parts; its plain text is of `kind`. */
export function content(
  node: JsonNode | undefined,
  pointer: string,
  kind: SegmentKind,
  place: SegmentPlace,
  into: SegmentList,
  sealed = false,
): void {
  if (node?.kind !== "array") {
    into.add(node, pointer, node?.kind === "string" ? kind : "other", place, sealed);
    return;
  }
  for (const [index, part] of node.items().entries()) {
    const type = textOf(part.get("type")) ?? "";
    const key = TEXT_PARTS.get(type);
    const at = `${pointer}/${index}`;
    if (key !== undefined) into.member(part, at, key, kind, place, sealed);
    else if (part.kind === "string") into.add(part, at, kind, place, sealed);
    else into.add(part, at, ATTACHMENTS.has(type) ? "attachment" : "other", place, sealed || isSigned(part));
  }
}

/** A tool call: `key` holds its arguments. */
export function call(
  holder: JsonNode,
  pointer: string,
  key: string,
  place: SegmentPlace,
  id: string | undefined,
  into: SegmentList,
): void {
  const tool = textOf(holder.get("name"));
  into.called(id, tool);
  into.member(holder, pointer, key, "tool-call", { ...place, ...named(tool) });
}

/** A tool's result, of the call `id`. */
export function result(
  node: JsonNode | undefined,
  pointer: string,
  message: number,
  id: string | undefined,
  into: SegmentList,
): void {
  const place: SegmentPlace = { role: "tool", message, ...named(into.toolOf(id)) };
  content(node, pointer, "tool-result", place, into);
}

/** Whether a value carries signed or encrypted content, which must come back as it was given. */
export function isSigned(node: JsonNode): boolean {
  return node.get("encrypted_content") !== undefined || node.get("signature") !== undefined;
}

function named(tool: string | undefined): { readonly tool?: string } {
  return tool === undefined ? {} : { tool };
}

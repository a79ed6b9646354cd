import {
  type BodyReader,
  type JsonNode,
  type SegmentList,
  type SegmentPlace,
  textOf,
} from "@tokenman/plugin-sdk";
import { call, content, isSigned, ROLES, result } from "./content-segments.ts";

/** Lists `instructions`, the prompt template's variables and the `input` of a Responses body. */
export function readInput(reader: BodyReader): void {
  reader.value("instructions", (text, into) =>
    content(text, "/instructions", "system", { role: "system", message: -1 }, into),
  );
  reader.value("prompt", readVariables);
  if (reader.get("input")?.kind === "array") reader.elements("input", readItem);
  else
    reader.value("input", (input, into) =>
      content(input, "/input", "text", { role: "user", message: 0 }, into),
    );
}

function readVariables(prompt: JsonNode, into: SegmentList): void {
  for (const variable of prompt.get("variables")?.entries() ?? []) {
    const pointer = `/prompt/variables/${escapeToken(variable.key)}`;
    const kind = variable.value.kind === "string" ? "text" : "other";
    into.add(variable.value, pointer, kind, { role: "user", message: -1 });
  }
}

function readItem(item: JsonNode, message: number, into: SegmentList): void {
  const at = `/input/${message}`;
  const type = textOf(item.get("type")) ?? "message";
  const assistant: SegmentPlace = { role: "assistant", message };
  const id = textOf(item.get("call_id"));
  if (type === "message") {
    const role = ROLES.get(textOf(item.get("role")) ?? "") ?? "other";
    const kind = role === "system" ? "system" : "text";
    content(item.get("content"), `${at}/content`, kind, { role, message }, into);
  } else if (type === "function_call" || type === "mcp_call")
    call(item, at, "arguments", assistant, id, into);
  else if (type === "custom_tool_call") call(item, at, "input", assistant, id, into);
  else if (ACTIONS.has(type)) call(item, at, ACTIONS.get(type)!, assistant, id, into);
  else if (type.endsWith("_output")) result(item.get("output"), `${at}/output`, message, id, into);
  else if (type === "reasoning") readReasoning(item, at, into, assistant);
  else into.add(item, at, "other", { role: "other", message }, type === "compaction" || isSigned(item));
}

/** Built-in tools whose call is an object of its own kind. */
const ACTIONS: ReadonlyMap<string, string> = new Map([
  ["local_shell_call", "action"],
  ["shell_call", "action"],
  ["computer_call", "action"],
  ["apply_patch_call", "operation"],
]);

/** A reasoning item is bound to its id and its encrypted content: nothing in it may change. */
function readReasoning(item: JsonNode, at: string, into: SegmentList, place: SegmentPlace): void {
  content(item.get("summary"), `${at}/summary`, "thinking", place, into, true);
  content(item.get("content"), `${at}/content`, "thinking", place, into, true);
  into.member(item, at, "encrypted_content", "thinking", place, true);
}

/** A key as a token of a JSON Pointer (RFC 6901 §3). */
function escapeToken(key: string): string {
  return key.replaceAll("~", "~0").replaceAll("/", "~1");
}

import { type JsonNode, type SegmentRole, textOf } from "@tokenman/plugin-sdk";
import { isSigned, type Place, type SegmentList } from "./segment-list.ts";

const ROLES: ReadonlyMap<string, SegmentRole> = new Map([
  ["system", "system"],
  ["developer", "system"],
  ["user", "user"],
  ["assistant", "assistant"],
]);

/** Lists `instructions`, the prompt template's variables and the `input` of a Responses body. */
export function readInput(root: JsonNode, list: SegmentList): void {
  list.content(root.get("instructions"), "/instructions", "system", { role: "system", message: -1 });
  for (const variable of root.get("prompt")?.get("variables")?.entries() ?? []) {
    const pointer = `/prompt/variables/${escapeToken(variable.key)}`;
    const kind = variable.value.kind === "string" ? "text" : "other";
    list.add(variable.value, pointer, kind, { role: "user", message: -1 });
  }
  const input = root.get("input");
  if (input?.kind !== "array") {
    list.content(input, "/input", "text", { role: "user", message: 0 });
    return;
  }
  for (const [message, item] of input.items().entries()) readItem(item, `/input/${message}`, message, list);
}

function readItem(item: JsonNode, at: string, message: number, list: SegmentList): void {
  const type = textOf(item.get("type")) ?? "message";
  const assistant: Place = { role: "assistant", message };
  const id = textOf(item.get("call_id"));
  if (type === "message") {
    const role = ROLES.get(textOf(item.get("role")) ?? "") ?? "other";
    list.content(item.get("content"), `${at}/content`, role === "system" ? "system" : "text", {
      role,
      message,
    });
  } else if (type === "function_call" || type === "mcp_call") list.call(item, at, "arguments", assistant, id);
  else if (type === "custom_tool_call") list.call(item, at, "input", assistant, id);
  else if (ACTIONS.has(type)) list.call(item, at, ACTIONS.get(type)!, assistant, id);
  else if (type.endsWith("_output")) list.result(item.get("output"), `${at}/output`, message, id);
  else if (type === "reasoning") readReasoning(item, at, list, assistant);
  else list.add(item, at, "other", { role: "other", message }, type === "compaction" || isSigned(item));
}

/** Built-in tools whose call is an object of its own kind. */
const ACTIONS: ReadonlyMap<string, string> = new Map([
  ["local_shell_call", "action"],
  ["shell_call", "action"],
  ["computer_call", "action"],
  ["apply_patch_call", "operation"],
]);

/** A reasoning item is bound to its id and its encrypted content: nothing in it may change. */
function readReasoning(item: JsonNode, at: string, list: SegmentList, place: Place): void {
  list.content(item.get("summary"), `${at}/summary`, "thinking", place, true);
  list.content(item.get("content"), `${at}/content`, "thinking", place, true);
  list.member(item, at, "encrypted_content", "thinking", place, true);
}

/** A key as a token of a JSON Pointer (RFC 6901 §3). */
function escapeToken(key: string): string {
  return key.replaceAll("~", "~0").replaceAll("/", "~1");
}

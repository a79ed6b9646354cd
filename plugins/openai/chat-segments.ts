import { type JsonNode, type SegmentRole, textOf } from "@tokenman/plugin-sdk";
import type { Place, SegmentList } from "./segment-list.ts";

/** Members of an assistant's message in which compatible servers give reasoning, which some want back unchanged. */
const REASONING = ["reasoning_content", "reasoning", "reasoning_details"];

/** Lists the `messages` of a Chat Completions body. */
export function readMessages(root: JsonNode, list: SegmentList): void {
  for (const [message, node] of (root.get("messages")?.items() ?? []).entries()) {
    const at = `/messages/${message}`;
    const spoken = textOf(node.get("role")) ?? "";
    if (spoken === "tool" || spoken === "function") {
      const id = textOf(node.get(spoken === "tool" ? "tool_call_id" : "name"));
      list.result(node.get("content"), `${at}/content`, message, id);
      continue;
    }
    const place: Place = { role: ROLES.get(spoken) ?? "other", message };
    for (const key of REASONING) list.member(node, at, key, "thinking", place, true);
    list.content(node.get("content"), `${at}/content`, place.role === "system" ? "system" : "text", place);
    list.member(node, at, "refusal", "text", place);
    readCalls(node, at, list, place);
  }
}

const ROLES: ReadonlyMap<string, SegmentRole> = new Map([
  ["system", "system"],
  ["developer", "system"],
  ["user", "user"],
  ["assistant", "assistant"],
]);

function readCalls(message: JsonNode, at: string, list: SegmentList, place: Place): void {
  for (const [index, call] of (message.get("tool_calls")?.items() ?? []).entries()) {
    const id = textOf(call.get("id"));
    const called = call.get("function");
    const custom = call.get("custom");
    const pointer = `${at}/tool_calls/${index}`;
    if (called !== undefined) list.call(called, `${pointer}/function`, "arguments", place, id);
    else if (custom !== undefined) list.call(custom, `${pointer}/custom`, "input", place, id);
    else list.add(call, pointer, "other", place);
  }
  const legacy = message.get("function_call");
  // The legacy form has no id: the result names the function.
  if (legacy !== undefined)
    list.call(legacy, `${at}/function_call`, "arguments", place, textOf(legacy.get("name")));
}

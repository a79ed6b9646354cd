import {
  type BodyReader,
  type JsonNode,
  type SegmentList,
  type SegmentPlace,
  textOf,
} from "@tokenman/plugin-sdk";
import { call, content, ROLES, result } from "./content-segments.ts";

/** Members of an assistant's message in which compatible servers give reasoning, which some want back unchanged. */
const REASONING = ["reasoning_content", "reasoning", "reasoning_details"];

/** Lists the `messages` of a Chat Completions body. */
export function readMessages(reader: BodyReader): void {
  reader.elements("messages", readMessage);
}

function readMessage(node: JsonNode, message: number, into: SegmentList): void {
  const at = `/messages/${message}`;
  const spoken = textOf(node.get("role")) ?? "";
  if (spoken === "tool" || spoken === "function") {
    const id = textOf(node.get(spoken === "tool" ? "tool_call_id" : "name"));
    result(node.get("content"), `${at}/content`, message, id, into);
    return;
  }
  const place: SegmentPlace = { role: ROLES.get(spoken) ?? "other", message };
  for (const key of REASONING) into.member(node, at, key, "thinking", place, true);
  content(node.get("content"), `${at}/content`, place.role === "system" ? "system" : "text", place, into);
  into.member(node, at, "refusal", "text", place);
  readCalls(node, at, into, place);
}

function readCalls(message: JsonNode, at: string, into: SegmentList, place: SegmentPlace): void {
  for (const [index, made] of (message.get("tool_calls")?.items() ?? []).entries()) {
    const id = textOf(made.get("id"));
    const called = made.get("function");
    const custom = made.get("custom");
    const pointer = `${at}/tool_calls/${index}`;
    if (called !== undefined) call(called, `${pointer}/function`, "arguments", place, id, into);
    else if (custom !== undefined) call(custom, `${pointer}/custom`, "input", place, id, into);
    else into.add(made, pointer, "other", place);
  }
  const legacy = message.get("function_call");
  // The legacy form has no id: the result names the function.
  if (legacy !== undefined)
    call(legacy, `${at}/function_call`, "arguments", place, textOf(legacy.get("name")), into);
}

import { type Json, objectOf, type Problems, textOf } from "./problems.ts";
import { checkModel } from "./validate-chat.ts";

const ROLES = new Set(["system", "developer", "user", "assistant"]);
const CALL = /^(?:function|custom_tool|local_shell|shell|computer|apply_patch)_call$/;
const OUTPUT = /^(?:function|custom_tool|local_shell|shell|computer|apply_patch)_call_output$/;

/** The rules of OpenAI's Responses API (its reference, and the guides on function calling and reasoning). */
export function checkResponses(body: Json, problems: Problems): void {
  checkModel(body, problems);
  const { input, instructions } = body;
  if (instructions !== undefined && instructions !== null && typeof instructions !== "string")
    problems.add("/instructions", "must be text");
  const refersBack = body["previous_response_id"] ?? body["conversation"];
  if (typeof input === "string") return;
  if (!Array.isArray(input)) {
    if (refersBack === undefined && body["prompt"] === undefined) problems.add("/input", "input is required");
    return;
  }
  const open = new Map<string, string>();
  let reasoning: string | undefined;
  input.forEach((element: unknown, index) => {
    const pointer = `/input/${index}`;
    const item = objectOf(element) ?? {};
    const type = textOf(item["type"]) || (item["role"] === undefined ? "" : "message");
    if (type === "") problems.add(pointer, "an item needs a type or a role");
    if (type === "message") checkMessage(item, pointer, problems);
    const id = textOf(item["call_id"]);
    // What the conversation that is referred to has called is not known here.
    if (OUTPUT.test(type) && !open.delete(id) && refersBack === undefined)
      problems.add(pointer, "an output without its call before it");
    if (CALL.test(type)) open.set(id, pointer);
    if (reasoning !== undefined && type !== "reasoning") {
      if (OUTPUT.test(type) || (type === "message" && item["role"] !== "assistant"))
        problems.add(reasoning, "reasoning without the item that it led to");
      reasoning = undefined;
    }
    if (type === "reasoning") reasoning = pointer;
  });
  if (reasoning !== undefined) problems.add(reasoning, "reasoning without the item that it led to");
  for (const pointer of open.values()) problems.add(pointer, "a call without its output");
}

function checkMessage({ role, content }: Json, pointer: string, problems: Problems): void {
  if (!ROLES.has(textOf(role))) problems.add(`${pointer}/role`, "is no role that the API knows");
  if (typeof content !== "string" && (!Array.isArray(content) || content.length === 0))
    problems.add(`${pointer}/content`, "content is required");
}

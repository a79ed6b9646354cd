import { type Json, listOf, objectOf, type Problems, textOf } from "./problems.ts";

const ROLES = new Set(["system", "developer", "user", "assistant", "tool", "function"]);
const MAX_CACHE_KEY = 64;

/** The rules of OpenAI's Chat Completions API (its reference, and the guide on function calling). */
export function checkChat(body: Json, problems: Problems): void {
  checkModel(body, problems);
  const { messages } = body;
  if (!Array.isArray(messages) || messages.length === 0) {
    problems.add("/messages", "at least one message is required");
    return;
  }
  let open = new Map<string, string>();
  messages.forEach((item: unknown, index) => {
    const pointer = `/messages/${index}`;
    const message = objectOf(item) ?? {};
    const role = textOf(message["role"]);
    if (!ROLES.has(role)) problems.add(`${pointer}/role`, "is no role that the API knows");
    checkContent(message, role, pointer, problems);
    if (role === "tool") {
      if (!open.delete(textOf(message["tool_call_id"])))
        problems.add(pointer, "a tool message without its call in the messages before");
      return;
    }
    // Nothing comes between an assistant's calls and all their results.
    report(open, problems);
    open = new Map(
      listOf(message["tool_calls"]).map((call, position) => [
        textOf(objectOf(call)?.["id"]),
        `${pointer}/tool_calls/${position}`,
      ]),
    );
  });
  report(open, problems);
}

/** What Chat and Responses have in common. */
export function checkModel(body: Json, problems: Problems): void {
  if (textOf(body["model"]) === "") problems.add("/model", "a model is required");
  const key = body["prompt_cache_key"];
  if (key !== undefined && (typeof key !== "string" || key.length > MAX_CACHE_KEY))
    problems.add("/prompt_cache_key", `must be text of at most ${MAX_CACHE_KEY} characters`);
}

function report(open: ReadonlyMap<string, string>, problems: Problems): void {
  for (const pointer of open.values()) problems.add(pointer, "a tool call without its tool message");
}

function checkContent(message: Json, role: string, pointer: string, problems: Problems): void {
  const { content } = message;
  const isText = typeof content === "string";
  const isParts = Array.isArray(content) && content.length > 0;
  if (isText || isParts) {
    listOf(content).forEach((part, index) => {
      if (textOf(objectOf(part)?.["type"]) === "")
        problems.add(`${pointer}/content/${index}`, "a part needs a type");
    });
    return;
  }
  const speaksOtherwise = ["tool_calls", "function_call", "refusal", "audio"].some(
    (key) => message[key] !== undefined && message[key] !== null,
  );
  if (role !== "assistant" || !speaksOtherwise) problems.add(`${pointer}/content`, "content is required");
}

import { type Json, listOf, objectOf, type Problems, textOf } from "./problems.ts";

const MAX_BREAKPOINTS = 4;

interface Block {
  readonly pointer: string;
  readonly value: Json;
}

/** The rules of Anthropic's Messages API (its reference, and the pages on tool use, thinking and prompt caching). */
export function checkMessages(body: Json, problems: Problems): void {
  if (textOf(body["model"]) === "") problems.add("/model", "a model is required");
  if (!Number.isInteger(body["max_tokens"])) problems.add("/max_tokens", "a whole number is required");
  const { messages } = body;
  if (!Array.isArray(messages) || messages.length === 0) {
    problems.add("/messages", "at least one message is required");
    return;
  }
  const contents = messages.map((message: unknown, index) => checkMessage(message, index, problems));
  if (objectOf(messages[0])?.["role"] !== "user")
    problems.add("/messages/0/role", "the first message must be the user's");
  checkTools(contents, problems);
  checkBreakpoints(body, contents, problems);
}

function checkMessage(message: unknown, index: number, problems: Problems): readonly Block[] {
  const at = `/messages/${index}`;
  const { role, content } = objectOf(message) ?? {};
  if (role !== "user" && role !== "assistant" && role !== "system")
    problems.add(`${at}/role`, "must be user, assistant or system");
  if (typeof content === "string") {
    if (content === "") problems.add(`${at}/content`, "content must not be empty");
    return [];
  }
  if (!Array.isArray(content) || content.length === 0) {
    problems.add(`${at}/content`, "content must be text or a list of blocks, not empty");
    return [];
  }
  return content.map((block: unknown, position) => {
    const pointer = `${at}/content/${position}`;
    const value = objectOf(block) ?? {};
    const type = textOf(value["type"]);
    if (type === "") problems.add(pointer, "a block needs a type");
    if (type === "text" && textOf(value["text"]) === "") problems.add(pointer, "text must not be empty");
    const owner = OWNER.get(type);
    if (owner !== undefined && owner !== role) problems.add(pointer, `${type} belongs to the ${owner}`);
    return { pointer, value };
  });
}

const OWNER: ReadonlyMap<string, string> = new Map([
  ["tool_use", "assistant"],
  ["thinking", "assistant"],
  ["redacted_thinking", "assistant"],
  ["tool_result", "user"],
]);

/** Every call is answered in the next message, before anything else there; every answer has its call in the one before. */
function checkTools(contents: readonly (readonly Block[])[], problems: Problems): void {
  const used = new Set<string>();
  let open = new Map<string, string>();
  for (const blocks of contents) {
    let hasOther = false;
    for (const { pointer, value } of blocks) {
      if (value["type"] !== "tool_result") {
        hasOther = true;
        continue;
      }
      if (!open.delete(textOf(value["tool_use_id"])))
        problems.add(pointer, "a tool_result without its tool_use in the message before");
      else if (hasOther) problems.add(pointer, "tool_results come first in their message");
    }
    for (const pointer of open.values())
      problems.add(pointer, "a tool_use without its tool_result in the next message");
    open = new Map();
    for (const { pointer, value } of blocks) {
      if (value["type"] !== "tool_use") continue;
      const id = textOf(value["id"]);
      if (used.has(id)) problems.add(pointer, "the id of a tool_use is not unique");
      used.add(id);
      open.set(id, pointer);
    }
  }
  for (const pointer of open.values())
    problems.add(pointer, "a tool_use without its tool_result in the next message");
}

/** In the order in which the provider reads them, the automatic one of the request itself last. */
function checkBreakpoints(body: Json, contents: readonly (readonly Block[])[], problems: Problems): void {
  const blocks = [
    ...blocksAt("/tools", body["tools"]),
    ...blocksAt("/system", body["system"]),
    ...contents
      .flat()
      .flatMap((block) => [...blocksAt(`${block.pointer}/content`, block.value["content"]), block]),
    { pointer: "", value: body },
  ].filter(({ value }) => value["cache_control"] !== undefined && value["cache_control"] !== null);
  let hasShort = false;
  blocks.forEach(({ pointer, value }, index) => {
    const at = `${pointer}/cache_control`;
    const marker = objectOf(value["cache_control"]);
    const ttl = marker?.["ttl"] ?? "5m";
    const type = value["type"];
    if (marker?.["type"] !== "ephemeral") problems.add(at, "the type of cache_control is ephemeral");
    if (ttl !== "5m" && ttl !== "1h") problems.add(at, "the ttl of cache_control is 5m or 1h");
    if (type === "thinking" || type === "redacted_thinking")
      problems.add(at, "no cache_control on thinking blocks");
    if (type === "text" && textOf(value["text"]) === "") problems.add(at, "no cache_control on empty text");
    if (ttl === "1h" && hasShort) problems.add(at, "a 1h cache_control comes before those of 5m");
    if (ttl === "5m") hasShort = true;
    if (index >= MAX_BREAKPOINTS) problems.add(at, `at most ${MAX_BREAKPOINTS} cache_control in a request`);
  });
}

function blocksAt(pointer: string, list: unknown): Block[] {
  return listOf(list).flatMap((item, index) => {
    const value = objectOf(item);
    return value === undefined ? [] : [{ pointer: `${pointer}/${index}`, value }];
  });
}

import { type Json, numberIn, objectOf, objectsOf, textIn } from "./json.ts";
import { KnownBlocks } from "./known-blocks.ts";
import type { Prompt, PromptBlock, PromptTool } from "./prompt.ts";
import { ATTACHMENT_TOKENS, BYTES_PER_TOKEN, MESSAGE_TOKENS, tokensOf } from "./tokens.ts";

const known = { tool: new KnownBlocks(), instructions: new KnownBlocks(), item: new KnownBlocks() };

/** Reads a checked body of Chat Completions or Responses; which of the two, its members tell. */
export function readOpenAi(body: Json, bytesPerToken: number = BYTES_PER_TOKEN): Prompt {
  const items = itemsOf(body);
  const instructions = textIn(body["instructions"]);
  const blocks: PromptBlock[] = objectsOf(body["tools"]).flatMap((tool) =>
    known.tool.of(tool, bytesPerToken, () => [blockOf(JSON.stringify(tool), "tool", 0, bytesPerToken)]),
  );
  if (instructions !== "") {
    const read = (): PromptBlock[] => [blockOf(instructions, "system", MESSAGE_TOKENS, bytesPerToken)];
    blocks.push(...known.instructions.of(instructions, bytesPerToken, read));
  }
  for (const item of items)
    blocks.push(...known.item.of(item, bytesPerToken, () => [itemBlock(item, bytesPerToken)]));
  const { stop } = body;
  return {
    model: textIn(body["model"]),
    isStream: body["stream"] === true,
    maxTokens: numberIn(body["max_completion_tokens"] ?? body["max_output_tokens"] ?? body["max_tokens"]),
    stop: (Array.isArray(stop) ? stop : [stop]).map(textIn).filter((text) => text !== ""),
    blocks,
    bytesPerToken,
    messageScope: "",
    tools: objectsOf(body["tools"]).flatMap(toolOf),
    toolChoice: choiceOf(body["tool_choice"]),
    lastUserText: textOf(items.findLast((item) => item["role"] === "user")?.["content"]),
    toolResults: resultsOf(items),
    answerSchema: answerSchema(body),
  };
}

/** The conversation: `messages`, or `input`, where text alone is one user's message. */
export function itemsOf(body: Json): readonly Json[] {
  if (Array.isArray(body["messages"])) return objectsOf(body["messages"]);
  const { input } = body;
  return typeof input === "string" ? [{ role: "user", content: input }] : objectsOf(input);
}

/** Ids of the calls that an item makes, and the id of the one that it answers. */
export function callsIn(item: Json): readonly { readonly id: string; readonly name: string }[] {
  const own = /^(?:function|custom_tool)_call$/.test(textIn(item["type"])) ? [item] : [];
  const nested = objectsOf(item["tool_calls"]).map((call) => ({
    call_id: call["id"],
    name: (objectOf(call["function"]) ?? objectOf(call["custom"]))?.["name"],
  }));
  return [...own, ...nested].map((call) => ({ id: textIn(call["call_id"]), name: textIn(call["name"]) }));
}
export function answeredBy(item: Json): string | undefined {
  if (item["role"] === "tool") return textIn(item["tool_call_id"]);
  return /^(?:function|custom_tool)_call_output$/.test(textIn(item["type"]))
    ? textIn(item["call_id"])
    : undefined;
}

function itemBlock(item: Json, bytesPerToken: number): PromptBlock {
  const place = textIn(item["role"]) || textIn(item["type"]);
  const files = objectsOf(item["content"]).filter((part) =>
    /image|audio|file/.test(textIn(part["type"])),
  ).length;
  const extra = MESSAGE_TOKENS + files * ATTACHMENT_TOKENS;
  const keys = Object.keys(item).filter((key) => key !== "role" && key !== "content" && key !== "type");
  const content = files > 0 || keys.length > 0 ? JSON.stringify(item) : textOf(item["content"]);
  const block = blockOf(content, place, extra, bytesPerToken);
  return files > 0 ? { ...block, tokens: extra } : block;
}

function blockOf(content: string, place: string, extraTokens: number, bytesPerToken: number): PromptBlock {
  const tokens = extraTokens + tokensOf(content, bytesPerToken);
  return { content, place, tokens, extraTokens, breakpoint: undefined, hasImage: false };
}

/** The text of content: itself, or its parts' texts. */
function textOf(content: unknown): string {
  if (typeof content === "string") return content;
  return objectsOf(content)
    .map((part) => textIn(part["text"]))
    .filter((text) => text !== "")
    .join("\n");
}

function toolOf(tool: Json): PromptTool[] {
  if (tool["type"] !== "function") return [];
  const definition = objectOf(tool["function"]) ?? tool;
  const name = textIn(definition["name"]);
  return name === "" ? [] : [{ name, schema: definition["parameters"] }];
}

function choiceOf(choice: unknown): Prompt["toolChoice"] {
  if (choice === "none") return "none";
  if (choice === "required") return "any";
  const chosen = objectOf(choice);
  const name = textIn((objectOf(chosen?.["function"]) ?? chosen)?.["name"]);
  return name === "" ? "auto" : { name };
}

function resultsOf(items: readonly Json[]): Prompt["toolResults"] {
  const names = new Map(items.flatMap(callsIn).map((call) => [call.id, call.name]));
  const start = items.findLastIndex((item) => answeredBy(item) === undefined) + 1;
  return items.slice(start).map((item) => ({
    tool: names.get(answeredBy(item) ?? ""),
    text: textOf(item["content"] ?? item["output"]),
  }));
}

function answerSchema(body: Json): unknown {
  const format = objectOf(body["response_format"]) ?? objectOf(objectOf(body["text"])?.["format"]);
  if (format?.["type"] === "json_object") return { type: "object" };
  if (format?.["type"] !== "json_schema") return undefined;
  return (objectOf(format["json_schema"]) ?? format)["schema"];
}

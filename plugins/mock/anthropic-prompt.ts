import { type Json, numberIn, objectOf, objectsOf, textIn } from "./json.ts";
import { KnownBlocks } from "./known-blocks.ts";
import type { CacheTtl, Prompt, PromptBlock } from "./prompt.ts";
import { ATTACHMENT_TOKENS, BYTES_PER_TOKEN, MESSAGE_TOKENS, tokensOf } from "./tokens.ts";

const known = { tool: new KnownBlocks(), system: new KnownBlocks(), message: new KnownBlocks() };

/** Reads a checked Messages body. */
export function readAnthropic(body: Json, bytesPerToken: number = BYTES_PER_TOKEN): Prompt {
  const messages = objectsOf(body["messages"]);
  const tools = objectsOf(body["tools"]);
  const { system } = body;
  const blocks: PromptBlock[] = [
    ...tools.flatMap((tool) =>
      known.tool.of(tool, bytesPerToken, () => [blockOf(tool, "tool", 0, bytesPerToken)]),
    ),
    ...(typeof system === "string" ? [system] : objectsOf(system)).flatMap((holder) =>
      known.system.of(holder, bytesPerToken, () => [
        blockOf(typeof holder === "string" ? textBlock(holder) : holder, "system", 0, bytesPerToken),
      ]),
    ),
  ];
  for (const message of messages) {
    const read = known.message.of(message, bytesPerToken, () => messageBlocks(message, bytesPerToken));
    for (const block of read) blocks.push(block);
  }
  return {
    model: textIn(body["model"]),
    isStream: body["stream"] === true,
    maxTokens: numberIn(body["max_tokens"]),
    stop: Array.isArray(body["stop_sequences"])
      ? body["stop_sequences"].map(textIn).filter((text) => text !== "")
      : [],
    blocks: withAutomaticBreakpoint(blocks, objectOf(body["cache_control"])),
    bytesPerToken,
    messageScope: messageScope(body, blocks),
    tools: tools
      .filter((tool) => tool["input_schema"] !== undefined && textIn(tool["name"]) !== "")
      .map((tool) => ({ name: textIn(tool["name"]), schema: tool["input_schema"] })),
    toolChoice: choiceOf(objectOf(body["tool_choice"])),
    lastUserText: lastUserText(messages),
    toolResults: resultsOf(messages),
    answerSchema: objectOf(objectOf(body["output_config"])?.["format"])?.["schema"],
  };
}

/** Content as blocks: a string is one block of text. */
export function blocksOf(content: unknown): readonly Json[] {
  return typeof content === "string" ? [textBlock(content)] : objectsOf(content);
}

function textBlock(text: string): Json {
  return { type: "text", text };
}

/** The marker on a block, or on one nested in a tool's result. */
export function breakpointOf(block: Json): CacheTtl | undefined {
  const nested = block["type"] === "tool_result" ? objectsOf(block["content"]) : [];
  for (const holder of [block, ...nested]) {
    const marker = objectOf(holder["cache_control"]);
    if (marker !== undefined) return marker["ttl"] === "1h" ? "1h" : "5m";
  }
  return undefined;
}

function messageBlocks({ role, content }: Json, bytesPerToken: number): PromptBlock[] {
  return blocksOf(content).map((block, index) =>
    blockOf(block, textIn(role), index === 0 ? MESSAGE_TOKENS : 0, bytesPerToken),
  );
}

function blockOf(block: Json, place: string, extra: number, bytesPerToken: number): PromptBlock {
  const { cache_control: _, ...rest } = block;
  const type = textIn(block["type"]);
  const content = type === "text" ? textIn(block["text"]) : JSON.stringify(rest, dropMarkers);
  const isFile = type === "image" || (type === "document" && !isText(block["source"]));
  const extraTokens = extra + (isFile ? ATTACHMENT_TOKENS : 0);
  const tokens = extraTokens + (isFile ? 0 : tokensOf(content, bytesPerToken));
  const hasImage = type === "image" || (type !== "text" && content.includes(IMAGE));
  return {
    content,
    place: `${place}/${type}`,
    tokens,
    extraTokens,
    breakpoint: breakpointOf(block),
    hasImage,
  };
}

/**
 * Another tool choice, other thinking, or an image where there was none: what was cached of the messages is not found any
 * more, while tools and system are (Anthropic's page on prompt caching, "What invalidates the cache").
 */
function messageScope(body: Json, blocks: readonly PromptBlock[]): string {
  const hasImages = blocks.some(({ hasImage }) => hasImage);
  return JSON.stringify([body["tool_choice"] ?? null, body["thinking"] ?? null, hasImages]);
}
/** Within a tool's result, whose blocks stand here as JSON. */
const IMAGE = '"type":"image"';

function dropMarkers(key: string, value: unknown): unknown {
  return key === "cache_control" ? undefined : value;
}

function isText(source: unknown): boolean {
  const type = objectOf(source)?.["type"];
  return type === "text" || type === "content";
}

/** A `cache_control` beside the messages marks the last block that can be cached. */
function withAutomaticBreakpoint(
  blocks: readonly PromptBlock[],
  marker: Json | undefined,
): readonly PromptBlock[] {
  const last = marker === undefined ? -1 : blocks.findLastIndex((block) => !block.place.endsWith("thinking"));
  if (last < 0) return blocks;
  const breakpoint = marker?.["ttl"] === "1h" ? "1h" : "5m";
  return blocks.map((block, index) => (index === last ? { ...block, breakpoint } : block));
}

function choiceOf(choice: Json | undefined): Prompt["toolChoice"] {
  const type = choice?.["type"];
  if (type === "none" || type === "any") return type;
  return type === "tool" ? { name: textIn(choice?.["name"]) } : "auto";
}

function lastUserText(messages: readonly Json[]): string {
  for (const message of messages.toReversed()) {
    if (message["role"] !== "user") continue;
    const texts = blocksOf(message["content"]).filter((block) => block["type"] === "text");
    if (texts.length > 0) return texts.map((block) => textIn(block["text"])).join("\n");
  }
  return "";
}

function resultsOf(messages: readonly Json[]): Prompt["toolResults"] {
  const names = new Map<string, string>();
  for (const message of messages) {
    for (const block of blocksOf(message["content"])) {
      if (block["type"] === "tool_use") names.set(textIn(block["id"]), textIn(block["name"]));
    }
  }
  return blocksOf(messages.at(-1)?.["content"])
    .filter((block) => block["type"] === "tool_result")
    .map((block) => ({
      tool: names.get(textIn(block["tool_use_id"])),
      text: blocksOf(block["content"])
        .map((part) => textIn(part["text"]))
        .join("\n"),
    }));
}

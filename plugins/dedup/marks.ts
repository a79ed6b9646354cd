import { type JsonNode, textOf } from "@tokenman/plugin-sdk";
import type { PromptParts } from "./prompt.ts";

/** How many blocks the provider looks back from a mark, the marked one included (Anthropic's page on prompt caching). */
const LOOK_BACK = 20;

/** Blocks that may carry a mark. Thinking must not, and of blocks that are not known nobody says so. */
const MARKABLE: ReadonlySet<string> = new Set(["text", "tool_result", "tool_use", "image", "document"]);

/** A block within the messages. */
export interface Place {
  readonly message: number;
  readonly block: number;
}

/** The last message that the user sent: what comes after it, the beginning of an answer, is another the next time. */
export function lastUserMessage(turns: readonly JsonNode[]): number {
  return turns.findLastIndex((turn) => textOf(turn.get("role")) === "user");
}

/** The last block of a message that can be marked; undefined where it has none. A text alone is block 0. */
export function markable(turns: readonly JsonNode[], message: number): Place | undefined {
  const content = turns[message]?.get("content");
  if (content?.kind === "string") return isBlank(content) ? undefined : { message, block: 0 };
  const block = content?.items().findLastIndex(isMarkable) ?? -1;
  return block < 0 ? undefined : { message, block };
}

/** The last block of a system prompt that can be marked; 0 for a text alone, -1 where there is none. */
export function markableSystem(system: JsonNode | undefined): number {
  if (system?.kind === "string") return isBlank(system) ? -1 : 0;
  return system?.items().findLastIndex(isMarkable) ?? -1;
}

/** The last tool that can be marked; -1 where there is none. One that is loaded later must not be. */
export function markableTool({ tools, order }: PromptParts): number {
  const items = order?.tools ?? tools?.items() ?? [];
  return items.findLastIndex(
    (tool) => tool.kind === "object" && tool.pick(DEFERRED).get("defer_loading")?.kind !== "true",
  );
}
const DEFERRED: ReadonlySet<string> = new Set(["defer_loading"]);

/** Whether the provider, looking back from `to`, would not find an entry that ends with `from`. */
export function isOutOfSight(turns: readonly JsonNode[], from: Place, to: Place): boolean {
  let blocks = to.block - from.block;
  for (let message = from.message; message < to.message && blocks < LOOK_BACK; message++) {
    const content = turns[message]?.get("content");
    blocks += content?.kind === "array" ? content.items().length : 1;
  }
  return blocks >= LOOK_BACK;
}

/** Bytes of the prompt up to the end of a place. */
export function bytesUpTo({ tools, system, list, turns }: PromptParts, message: number): number {
  return sizeOf(tools) + sizeOf(system) + (turns[message]!.end - list.start);
}

export function sizeOf(node: JsonNode | undefined): number {
  return node === undefined ? 0 : node.end - node.start;
}

function isMarkable(block: JsonNode): boolean {
  if (block.kind !== "object" || !MARKABLE.has(textOf(block.get("type")) ?? "")) return false;
  const text = block.get("text");
  return text === undefined || !isBlank(text);
}

/** The provider refuses a mark on an empty text. A long one is not looked through. */
function isBlank(text: JsonNode): boolean {
  return text.kind !== "string" || (text.end - text.start < 1_024 && (textOf(text) ?? "").trim() === "");
}

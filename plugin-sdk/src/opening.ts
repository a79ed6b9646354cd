import type { JsonNode } from "./json-index.ts";
import { textOf } from "./json-read.ts";

/** How much of each text counts: what tells two conversations apart stands near their beginnings. */
const MAX_BYTES = 4096;

const TURN: ReadonlySet<string> = new Set(["content", "role"]);
const PART: ReadonlySet<string> = new Set(["text"]);

/**
 * How a conversation begins: the first bytes of its system prompt and of the texts up to its first user message. The same
 * at each of its turns, wherever the client puts its cache marks, and cheap: what follows is not looked at. "" where
 * there is neither. `turns` is the list of messages, or a text alone.
 */
export function openingOf(system: JsonNode | undefined, turns: JsonNode | undefined): string {
  const texts: string[] = [];
  try {
    addTexts(system, texts);
    if (turns?.kind === "array") {
      for (const turn of turns.each()) {
        const members = turn.pick(TURN);
        addTexts(turn.kind === "object" ? members.get("content") : turn, texts);
        if (textOf(members.get("role")) === "user") break;
      }
    } else addTexts(turns, texts);
  } catch {
    // A literal that is no JSON: what was read before it has to do.
  }
  return texts.join("\n");
}

function addTexts(content: JsonNode | undefined, texts: string[]): void {
  if (content?.kind === "array") {
    for (const part of content.each())
      add(part.kind === "object" ? part.pick(PART).get("text") : part, texts);
  } else add(content, texts);
}

function add(node: JsonNode | undefined, texts: string[]): void {
  if (node?.kind === "string") texts.push(node.head(MAX_BYTES));
}

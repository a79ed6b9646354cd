import type { JsonNode } from "./json-index.ts";
import { textOf } from "./json-read.ts";
import { KnownBytes } from "./known-bytes.ts";

/** How much of each text counts: what tells two conversations apart stands near their beginnings. */
const MAX_BYTES = 4096;
/** What a conversation has at the least behind its first user message: the next turn of it is then likely to come. */
const MIN_REST_BYTES = 256;

const TURN: ReadonlySet<string> = new Set(["content", "role"]);
const PART: ReadonlySet<string> = new Set(["text"]);

/** Of system prompts, and of the turns up to the first user message. */
const systems = new KnownBytes<string>();
const openings = new KnownBytes<{ system: string; text: string }>({
  entries: 32,
  bytes: 2_097_152,
  minBytes: 32,
});

/**
 * How a conversation begins: the first bytes of its system prompt and of the texts up to its first user message. The same
 * at each of its turns, wherever the client puts its cache marks, and cheap: what follows is not looked at. "" where
 * there is neither. `turns` is the list of messages, or a text alone. With the `body` that both are in, what was read in
 * the turn before is not read again, and the text is the same one.
 */
export function openingOf(system: JsonNode | undefined, turns: JsonNode | undefined, body?: Buffer): string {
  const before = systemOf(system, body);
  const found =
    body === undefined || turns === undefined ? undefined : openings.beginning(body, turns.start, turns.end);
  if (found !== undefined && found.system === before) return found.text;
  const texts: string[] = before === "" ? [] : [before];
  let end = -1;
  try {
    if (turns?.kind === "array") {
      for (const turn of turns.each()) {
        const members = turn.pick(TURN);
        addTexts(turn.kind === "object" ? members.get("content") : turn, texts);
        if (textOf(members.get("role")) !== "user") continue;
        end = turn.end;
        break;
      }
    } else addTexts(turns, texts);
  } catch {
    // A literal that is no JSON: what was read before it has to do.
  }
  const text = texts.join("\n");
  if (found !== undefined) Object.assign(found, { system: before, text });
  else if (body !== undefined && turns !== undefined && end > 0 && turns.end - end >= MIN_REST_BYTES)
    openings.keep(body, turns.start, end, { system: before, text });
  return text;
}

function systemOf(system: JsonNode | undefined, body: Buffer | undefined): string {
  if (system === undefined) return "";
  const make = (): string => {
    const texts: string[] = [];
    try {
      addTexts(system, texts);
    } catch {
      // As above.
    }
    return texts.join("\n");
  };
  return body === undefined ? make() : systems.of(body, system.start, system.end, make);
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

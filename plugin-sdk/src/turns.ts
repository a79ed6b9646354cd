import crypto from "node:crypto";
import type { Segment } from "./dialect.ts";
import type { Exchange, JsonPatch } from "./exchange.ts";
import type { JsonNode } from "./json-index.ts";
import { textOf } from "./json-read.ts";

/**
 * A conversation in turns. It opens with all that comes before the first answer; from then on a turn begins where a user
 * speaks after something else: a message of tool results is no beginning, nor is the second of two messages in a row.
 */
export interface Turns {
  /** Where the messages are. */
  readonly list: "messages" | "input";
  /** How many messages it opens with. A user's is among them. */
  readonly opening: number;
  /** Indexes of the messages that begin a turn, after the opening. */
  readonly starts: readonly number[];
  /** Index behind the last message. */
  readonly end: number;
  /** Messages of the assistant's: about as many requests were answered so far. */
  readonly answers: number;
  /** Messages after the opening in which neither user nor assistant speaks but the developer. */
  readonly developers: ReadonlySet<number>;
}

const LISTS: ReadonlyMap<string, Turns["list"]> = new Map([
  ["anthropic-messages", "messages"],
  ["openai-chat", "messages"],
  ["openai-responses", "input"],
]);

/**
 * The turns of a request of one of the known dialects; undefined where it does not open with a user's message, where the
 * provider has its beginning, or where nothing can be read of it. It costs a look at each segment, and reads no text.
 */
export function turnsOf(exchange: Exchange): Turns | undefined {
  const list = LISTS.get(exchange.dialect?.name ?? "");
  // A body of another dialect's shape has its turns elsewhere, where nothing would be cut.
  if (list === undefined || exchange.node(`/${list}`) === undefined) return undefined;
  const reader = new TurnReader();
  for (const segment of exchange.segments) if (segment.message >= 0) reader.segment(segment);
  const turns = reader.turns(list);
  return turns !== undefined && list === "input" && continuesElsewhere(exchange) ? undefined : turns;
}

/** Whether the provider has the beginning of the conversation, and the request only what follows it. */
function continuesElsewhere(exchange: Exchange): boolean {
  return ["/previous_response_id", "/conversation"].some((pointer) => {
    const node = exchange.node(pointer);
    return node !== undefined && node.kind !== "null";
  });
}

class TurnReader {
  readonly #starts: number[] = [];
  readonly #developers = new Set<number>();
  #message = -1;
  #user = false;
  #assistant = false;
  #other = false;
  /** Who spoke last, but for the developer. */
  #before: "user" | "answer" | undefined;
  #opening = -1;
  #answers = 0;

  segment({ message, role }: Segment): void {
    if (message !== this.#message) this.#close(message);
    if (role === "user") this.#user = true;
    else if (role === "assistant") this.#assistant = true;
    else if (role !== "system") this.#other = true;
  }
  turns(list: Turns["list"]): Turns | undefined {
    const end = this.#message + 1;
    this.#close(-1);
    if (this.#before === undefined || this.#opening === 0) return undefined;
    return {
      list,
      opening: this.#opening < 0 ? end : this.#opening,
      starts: this.#starts,
      end,
      answers: this.#answers,
      developers: this.#developers,
    };
  }

  #close(next: number): void {
    const message = this.#message;
    this.#message = next;
    const isAnswer = this.#assistant || this.#other;
    if (message >= 0) {
      if (this.#assistant) this.#answers++;
      // Without a user's message before the first answer there is no opening: 0.
      if (isAnswer && this.#opening < 0) this.#opening = this.#before === "user" ? message : 0;
      if (!isAnswer && !this.#user) {
        if (this.#opening >= 0) this.#developers.add(message);
      } else if (isAnswer) this.#before = "answer";
      else {
        if (this.#before === "answer") this.#starts.push(message);
        this.#before = "user";
      }
    }
    this.#user = false;
    this.#assistant = false;
    this.#other = false;
  }
}

/** A hash of what is said in the messages [from, to), wherever cache marks stand, and whether as a text or in blocks. */
export function hashOfMessages(segments: readonly Segment[], from: number, to: number): string {
  const hashes: string[] = [];
  for (const segment of segments)
    if (segment.message >= from && segment.message < to) hashes.push(segment.hash);
  return crypto.hash("sha256", hashes.join(" "), "base64url").slice(0, 22);
}

/**
 * Whether the messages between the opening and message `at` can be taken out of the request: each is of a form that is
 * known, no call and its result come apart, and `at` begins with what a user says. Reads all messages: for when a cut
 * is decided, not for each turn.
 */
export function canCut(exchange: Exchange, { list, opening, starts }: Turns, at: number): boolean {
  const items = exchange.node(`/${list}`)?.items();
  const read = READERS.get(exchange.dialect?.name ?? "");
  if (items === undefined || read === undefined || !starts.includes(at)) return false;
  let called = new Set<string>();
  const open = new Set<string>();
  for (const [index, item] of items.entries()) {
    if (index === at) {
      if (open.size > 0) return false;
      called = new Set();
    }
    const { isKnown, calls, results } = read(item);
    if (index >= opening && index <= at && !isKnown) return false;
    if (index === at && results.length > 0) return false;
    for (const id of results) {
      if (!called.has(id)) return false;
      open.delete(id);
    }
    for (const id of calls) {
      called.add(id);
      open.add(id);
    }
  }
  return true;
}

/**
 * The edits that send `value`, an assistant's message, in the place of all between the opening and message `at`. What a
 * developer says among them stays.
 */
export function cutPatches(
  { list, opening, developers }: Pick<Turns, "list" | "opening" | "developers">,
  at: number,
  value: unknown,
): JsonPatch[] {
  const patches: JsonPatch[] = [];
  for (let index = opening; index < at; index++)
    if (!developers.has(index)) patches.push({ op: "remove", pointer: `/${list}/${index}` });
  patches.push({ op: "add", pointer: `/${list}/${at}`, value });
  return patches;
}

/** What a message or item holds, as far as a cut is concerned. */
interface Holding {
  /** Its form is one that may be left out. */
  readonly isKnown: boolean;
  readonly calls: readonly string[];
  readonly results: readonly string[];
}

const UNKNOWN: Holding = { isKnown: false, calls: [], results: [] };

const BLOCKS: ReadonlySet<string> = new Set([
  "text",
  "image",
  "document",
  "search_result",
  "thinking",
  "redacted_thinking",
]);

function readMessage(message: JsonNode): Holding {
  const role = textOf(message.get("role"));
  const content = message.get("content");
  let isKnown = role === "user" || role === "assistant";
  if (content?.kind === "string") return { ...UNKNOWN, isKnown: isKnown && !isEmpty(content) };
  const calls: string[] = [];
  const results: string[] = [];
  const blocks = content?.items() ?? [];
  for (const block of blocks) {
    const type = textOf(block.get("type")) ?? "";
    if (type === "tool_use" || type === "server_tool_use" || type === "mcp_tool_use")
      calls.push(textOf(block.get("id")) ?? "");
    else if (type.endsWith("tool_result")) results.push(textOf(block.get("tool_use_id")) ?? "");
    else if (!BLOCKS.has(type)) isKnown = false;
  }
  return { isKnown: isKnown && blocks.length > 0, calls, results };
}

function readChatMessage(message: JsonNode): Holding {
  const role = textOf(message.get("role"));
  if (role === "tool") return { isKnown: true, calls: [], results: idsOf([message], "tool_call_id") };
  const isHeard = role === "user" || role === "system" || role === "developer";
  const made = message.get("tool_calls");
  const calls = made?.kind === "array" ? idsOf(made.items(), "id") : [];
  if (isHeard) return { isKnown: hasContent(message), calls, results: [] };
  // The form before tools had ids: its results name functions.
  const isKnown = role === "assistant" && message.get("function_call") === undefined;
  return { isKnown: isKnown && (calls.length > 0 || hasContent(message)), calls, results: [] };
}

/** Items that stand for themselves. What stands for others, such as a compaction or a reference, is not among them. */
const ITEMS: ReadonlySet<string> = new Set([
  "reasoning",
  "web_search_call",
  "file_search_call",
  "code_interpreter_call",
  "image_generation_call",
  "mcp_call",
]);
const CALL = /^(?:function|custom_tool|local_shell|shell|computer|apply_patch)_call$/;
const OUTPUT = /^(?:function|custom_tool|local_shell|shell|computer|apply_patch)_call_output$/;

function readItem(item: JsonNode): Holding {
  const type = textOf(item.get("type")) ?? "message";
  if (CALL.test(type)) return { isKnown: true, calls: idsOf([item], "call_id"), results: [] };
  if (OUTPUT.test(type)) return { isKnown: true, calls: [], results: idsOf([item], "call_id") };
  const isKnown =
    type === "message"
      ? ROLES.has(textOf(item.get("role")) ?? "") && hasContent(item)
      : ITEMS.has(type) && item.kind === "object";
  return { ...UNKNOWN, isKnown };
}

const ROLES: ReadonlySet<string> = new Set(["user", "assistant", "system", "developer"]);

const READERS: ReadonlyMap<string, (item: JsonNode) => Holding> = new Map([
  ["anthropic-messages", readMessage],
  ["openai-chat", readChatMessage],
  ["openai-responses", readItem],
]);

function idsOf(holders: readonly JsonNode[], key: string): readonly string[] {
  return holders.map((holder) => textOf(holder.get(key)) ?? "");
}

/** Parts of content in Chat and in Responses. */
const PARTS: ReadonlySet<string> = new Set([
  "text",
  "refusal",
  "image_url",
  "input_audio",
  "file",
  "input_text",
  "output_text",
  "input_image",
  "input_file",
]);

function hasContent(message: JsonNode): boolean {
  const content = message.get("content");
  if (content?.kind === "string") return !isEmpty(content);
  const parts = content?.items() ?? [];
  return parts.length > 0 && parts.every((part) => PARTS.has(textOf(part.get("type")) ?? ""));
}

function isEmpty({ start, end }: JsonNode): boolean {
  return end - start <= 2;
}

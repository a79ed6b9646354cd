import { type Exchange, type JsonNode, type JsonPatch, textOf } from "@tokenman/plugin-sdk";
import { type Lifetime, lifetimeFor, longer, NO_GAPS, withGap } from "./lifetime.ts";
import {
  bytesUpTo,
  isOutOfSight,
  markable,
  markableSystem,
  markableTool,
  type Place,
  sizeOf,
} from "./marks.ts";
import type { Conversation, Head } from "./memory.ts";
import type { Fingerprint, PromptParts } from "./prompt.ts";
import { isMoved } from "./tool-order.ts";

/** Too many tokens to a byte for prose, and so a mark too few rather than a useless one: JSON's own bytes count, too. */
const BYTES_PER_TOKEN = 4;

/**
 * In a longer conversation texts stay texts, but for those that are marked: to the provider they are the same, and to make
 * blocks of so many would take the loop's time at each turn.
 */
const MAX_BLOCKS = 1_000;

/** What is to be marked in a request, and what will be known once it was answered. */
export interface Marks {
  /** Of tools and system, and of messages. Undefined: they are not marked. */
  readonly head: Lifetime | undefined;
  readonly messages: Lifetime | undefined;
  /** The tool, system block and blocks of messages to mark; -1 is none. */
  readonly tool: number;
  readonly system: number;
  readonly places: readonly Place[];
  /** From this message on texts are sent as blocks, marked or not, so that a mark that moves changes nothing else. */
  readonly from: number;
  readonly conversation: Conversation;
  readonly nextHead: Head;
}

/** What is known of a request that may be marked. */
export interface Seen {
  readonly print: Fingerprint;
  /** The last message of the user's. */
  readonly last: number;
  readonly before: Conversation | undefined;
  /** Whether it begins, all of it, as the one before. */
  readonly repeats: boolean;
  readonly head: Head | undefined;
}

export interface MarkRules {
  readonly repeatMs: number;
  readonly mayTakeHour: boolean;
  readonly minTokens: number;
}

/**
 * Where to mark a Messages request: at most the last tool, the last system block, the last block of the last user's
 * message, and the block marked before where the provider would not see it from there; the first two once the same tools
 * and system came before, the others once the conversation did.
 */
export function marksFor(
  parts: PromptParts,
  { print, last, before, repeats, head: seenHead }: Seen,
  rules: MarkRules,
  now: number,
): Marks {
  const { turns, tools, system } = parts;
  const gaps = before === undefined ? NO_GAPS : withGap(before.gaps, repeats ? now - before.at : undefined);
  const isLong = (bytes: number): boolean => bytes >= rules.minTokens * BYTES_PER_TOKEN;

  const headBytes = sizeOf(tools) + sizeOf(system);
  const headGap = seenHead === undefined ? Number.POSITIVE_INFINITY : now - seenHead.at;
  const headGaps = seenHead === undefined ? NO_GAPS : withGap(seenHead.gaps, headGap);
  const ofHead =
    headGap <= rules.repeatMs ? lifetimeFor(headGaps, headBytes, 0, rules.mayTakeHour) : undefined;

  const total = bytesUpTo(parts, last);
  const repeated = headBytes + (before?.bytes ?? 0);
  const wanted =
    before === undefined || !isLong(total)
      ? undefined
      : lifetimeFor(gaps, repeated, Math.max(0, total - repeated), rules.mayTakeHour);
  const place = wanted === undefined ? undefined : (markable(turns, last) ?? earlier(turns, last));
  const messages = place === undefined ? undefined : wanted;
  // A mark for an hour must not come after one for less.
  const head = longer(ofHead, messages);
  const tool = head !== undefined && isLong(sizeOf(tools)) ? markableTool(parts) : -1;
  const systemBlock = head !== undefined && isLong(headBytes) ? markableSystem(system) : -1;
  const from = before !== undefined && before.from >= 0 ? before.from : (place?.message ?? -1);
  return {
    head,
    messages,
    tool,
    system: systemBlock,
    places:
      place === undefined
        ? []
        : [...(repeats && before !== undefined ? stepTo(turns, before, place) : []), place],
    from,
    conversation: {
      ...print,
      at: now,
      gaps,
      from,
      message: place?.message ?? -1,
      block: place?.block ?? -1,
      tokens: 0,
    },
    nextHead: { at: now, gaps: headGaps },
  };
}

/** The last message had nothing to mark: the one before it may. */
function earlier(turns: readonly JsonNode[], last: number): Place | undefined {
  const message = turns.findLastIndex((turn, index) => index < last && textOf(turn.get("role")) === "user");
  return message < 0 ? undefined : markable(turns, message);
}

/** Where the entry is that the provider would not find from the new mark: to mark it again costs a read. */
function stepTo(turns: readonly JsonNode[], before: Conversation, place: Place): readonly Place[] {
  if (before.message < 0 || before.message >= place.message) return [];
  const found = markable(turns, before.message);
  return found?.block === before.block && isOutOfSight(turns, found, place) ? [found] : [];
}

/** The edits that make the marks, but for one on a tool that goes to another place. `takesHour`: whether this provider knows the one-hour cache. */
export function patchesFor(
  exchange: Exchange,
  parts: PromptParts,
  marks: Marks,
  takesHour: boolean,
): JsonPatch[] {
  const { system, turns } = parts;
  const stands = (pointer: string): boolean => !exchange.edited || exchange.stands(pointer);
  const patches: JsonPatch[] = [];
  const currentText = currentTexts(exchange);
  const mark = (pointer: string, lifetime: Lifetime): void => {
    if (stands(pointer))
      patches.push({ op: "add", pointer: `${pointer}/cache_control`, value: markOf(lifetime, takesHour) });
  };
  const asBlock = (pointer: string, node: JsonNode, lifetime: Lifetime | undefined): void => {
    const text = stands(pointer) ? currentText(pointer, node) : undefined;
    if (text === undefined) return;
    const block = { type: "text", text };
    const value = lifetime === undefined ? block : { ...block, cache_control: markOf(lifetime, takesHour) };
    patches.push({ op: "replace", pointer, value: [value] });
  };
  const { head, messages, from } = marks;
  if (marks.tool >= 0 && !isMoved(parts, marks.tool)) mark(`/tools/${marks.tool}`, head!);
  if (system?.kind === "string") {
    if (marks.system >= 0) asBlock("/system", system, head);
    else if (from >= 0 && markableSystem(system) >= 0) asBlock("/system", system, undefined);
  } else if (marks.system >= 0) mark(`/system/${marks.system}`, head!);
  const marked = new Map(marks.places.map(({ message, block }) => [message, block]));
  if (from < 0) return patches;
  const first = turns.length - from > MAX_BLOCKS ? turns.length : from;
  for (let message = Math.min(first, ...marked.keys()); message < turns.length; message++) {
    const turn = turns[message]!;
    const content = turn.get("content");
    const pointer = `/messages/${message}/content`;
    const block = marked.get(message);
    if (content?.kind === "string") {
      const isBlock = block !== undefined || (message >= first && textOf(turn.get("role")) === "user");
      if (isBlock && markable(turns, message) !== undefined)
        asBlock(pointer, content, block === undefined ? undefined : messages);
    } else if (block !== undefined) mark(`${pointer}/${block}`, messages!);
  }
  return patches;
}

export function markOf(lifetime: Lifetime, takesHour: boolean): object {
  return lifetime === "1h" && takesHour ? { type: "ephemeral", ttl: "1h" } : { type: "ephemeral" };
}

/** Texts as the plugins left them, by their pointers. */
function currentTexts(exchange: Exchange): (pointer: string, node: JsonNode) => string | undefined {
  if (!exchange.edited) return (_pointer, node) => textOf(node);
  const texts = new Map(exchange.segments.map((segment) => [segment.pointer, segment]));
  return (pointer) => texts.get(pointer)?.text;
}

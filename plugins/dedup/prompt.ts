import crypto from "node:crypto";
import { type Exchange, type JsonNode, KnownBytes, textOf } from "@tokenman/plugin-sdk";
import type { ToolOrder } from "./tool-order.ts";

/** Where the parts of a request stand that a provider's prompt cache is about, in the order in which it reads them. */
export interface PromptParts {
  readonly model: string;
  readonly tools: JsonNode | undefined;
  /** The pointer to them. */
  readonly toolsAt: string;
  /** The order in which they are sent, where that is not the client's. */
  readonly order: ToolOrder | undefined;
  readonly system: JsonNode | undefined;
  /** The list of messages, and what is in it. */
  readonly list: JsonNode;
  readonly turns: readonly JsonNode[];
}

/** How a request begins, told by hashes: whether another one begins as it does, and what differs. */
export interface Fingerprint {
  readonly model: string;
  readonly tools: string;
  readonly system: string;
  /** Bytes of the list of messages up to the end of its last block, and a hash of the last of them. */
  readonly bytes: number;
  readonly tail: string;
}

const ROLE: ReadonlySet<string> = new Set(["role"]);

/** Hashes of tools and system prompts, and keys by first messages: what comes again with every turn. */
const hashes = new KnownBytes<string>();
const keys = new KnownBytes<{ session: string; key: string }>();

/** Bytes at the end that are compared; what was inserted or removed before them moves them. */
const TAIL_BYTES = 1_024;

/** The parts of a request of any dialect; undefined where it has no list of messages with something in it. */
export function partsOf(exchange: Exchange): PromptParts | undefined {
  try {
    const root = exchange.node("");
    // Anthropic's requests have no list but this one, whatever else is in them.
    const other = exchange.dialect?.name === "anthropic-messages" ? undefined : root?.get("input");
    const list = root?.get("messages") ?? other;
    const turns = list?.items();
    if (root === undefined || list === undefined || turns === undefined || turns.length === 0)
      return undefined;
    const tools = root.get("tools");
    return {
      model: exchange.description?.model ?? "",
      tools: tools ?? root.get("functions"),
      toolsAt: tools === undefined ? "/functions" : "/tools",
      order: undefined,
      system: root.get("system") ?? root.get("instructions") ?? leadingSystem(turns[0]),
      list,
      turns,
    };
  } catch {
    // A key that does not decode.
    return undefined;
  }
}

/** Chat Completions has its system prompt among the messages. */
function leadingSystem(first: JsonNode | undefined): JsonNode | undefined {
  // A long one is not kept apart for its role.
  const role = textOf(first?.pick(ROLE).get("role"));
  return role === "system" || role === "developer" ? first : undefined;
}

/** `last` is the index of the last message that will be there again. */
export function fingerprintOf(body: Buffer, parts: PromptParts, last: number): Fingerprint {
  const bytes = endOf(parts.turns[last]!) - parts.list.start;
  return {
    model: parts.model,
    tools: parts.order?.hash ?? hashOf(body, parts.tools),
    system: hashOf(body, parts.system),
    bytes,
    tail: tailOf(body, parts.list.start, bytes),
  };
}

/** Where the last of what a message says ends: the same message may come again with more blocks behind it. */
function endOf(turn: JsonNode): number {
  const content = turn.get("content");
  return (content?.items().at(-1) ?? content ?? turn).end;
}

/** Whether the messages begin with those of a request before. */
export function continues(body: Buffer, { list }: PromptParts, before: Fingerprint): boolean {
  return list.start + before.bytes <= list.end && tailOf(body, list.start, before.bytes) === before.tail;
}

/** A conversation is told from others by its session and its first message. */
export function conversationKey({ session }: Exchange, body: Buffer, { turns, system }: PromptParts): string {
  const first = turns[0] === system ? turns[1] : turns[0];
  const make = (): string => shortHash(`${session}\n${first?.head(4_096) ?? ""}`);
  // A request that nothing follows is not kept.
  if (first === undefined || turns.length < 3) return make();
  const known = keys.of(body, first.start, first.end, () => ({ session, key: make() }));
  if (known.session !== session) Object.assign(known, { session, key: make() });
  return known.key;
}

/** Tools and system as one account's cache has them. */
export function headKey({ credentialHash }: Exchange, { model, tools, system }: Fingerprint): string {
  return `${credentialHash} ${tools} ${system} ${model}`;
}

function tailOf(body: Buffer, start: number, bytes: number): string {
  return shortHash(body.subarray(start + Math.max(0, bytes - TAIL_BYTES), start + bytes));
}

export function hashOf(body: Buffer, node: JsonNode | undefined): string {
  if (node === undefined) return "";
  const { start, end } = node;
  return hashes.of(body, start, end, () => shortHash(body.subarray(start, end)));
}

/** 96 bits: nobody gains by making two of them alike. */
export function shortHash(bytes: Buffer | string): string {
  return crypto.hash("sha256", bytes, "base64url").slice(0, 16);
}

import crypto from "node:crypto";
import { type Exchange, type JsonNode, textOf } from "@tokenman/plugin-sdk";

/** Where the parts of a request stand that a provider's prompt cache is about, in the order in which it reads them. */
export interface PromptParts {
  readonly model: string;
  readonly tools: JsonNode | undefined;
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

/** Bytes at the end that are compared; what was inserted or removed before them moves them. */
const TAIL_BYTES = 1_024;

/** The parts of a request of any dialect; undefined where it has no list of messages with something in it. */
export function partsOf(exchange: Exchange): PromptParts | undefined {
  const messages = exchange.node("/messages");
  const list = messages ?? exchange.node("/input");
  const turns = list?.items();
  if (list === undefined || turns === undefined || turns.length === 0) return undefined;
  return {
    model: exchange.description?.model ?? "",
    tools: exchange.node("/tools") ?? exchange.node("/functions"),
    system: exchange.node("/system") ?? exchange.node("/instructions") ?? leadingSystem(turns[0]),
    list,
    turns,
  };
}

/** Chat Completions has its system prompt among the messages. */
function leadingSystem(first: JsonNode | undefined): JsonNode | undefined {
  const role = textOf(first?.get("role"));
  return role === "system" || role === "developer" ? first : undefined;
}

/** `last` is the index of the last message that will be there again. */
export function fingerprintOf(body: Buffer, parts: PromptParts, last: number): Fingerprint {
  const bytes = endOf(parts.turns[last]!) - parts.list.start;
  return {
    model: parts.model,
    tools: hashOf(body, parts.tools),
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
export function conversationKey({ session }: Exchange, { turns, system }: PromptParts): string {
  const first = turns[0] === system ? turns[1] : turns[0];
  return shortHash(`${session}\n${first?.head(4_096) ?? ""}`);
}

/** Tools and system as one account's cache has them. */
export function headKey({ credentialHash }: Exchange, { model, tools, system }: Fingerprint): string {
  return shortHash(`${credentialHash} ${model} ${tools} ${system}`);
}

function tailOf(body: Buffer, start: number, bytes: number): string {
  return shortHash(body.subarray(start + Math.max(0, bytes - TAIL_BYTES), start + bytes));
}

function hashOf(body: Buffer, node: JsonNode | undefined): string {
  return node === undefined ? "" : shortHash(body.subarray(node.start, node.end));
}

/** 96 bits: nobody gains by making two of them alike. */
export function shortHash(bytes: Buffer | string): string {
  return crypto.hash("sha256", bytes, "base64url").slice(0, 16);
}

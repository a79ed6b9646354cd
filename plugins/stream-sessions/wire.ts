import { headerValue, type RawHeaders } from "@tokenman/plugin-sdk";
import { MessageAssembler } from "./anthropic.ts";
import type { Assembler } from "./assembler.ts";
import { ChatAssembler, ResponseAssembler } from "./openai.ts";

/** How a session's requests look in one dialect. */
export interface Wire {
  /** The dialect's name. */
  readonly name: string;
  readonly path: string;
  /** The member that holds the conversation. */
  readonly list: "messages" | "input";
  assembler(): Assembler;
}

export const WIRES: readonly Wire[] = [
  {
    name: "anthropic-messages",
    path: "/v1/messages",
    list: "messages",
    assembler: () => new MessageAssembler(),
  },
  {
    name: "openai-chat",
    path: "/v1/chat/completions",
    list: "messages",
    assembler: () => new ChatAssembler(),
  },
  {
    name: "openai-responses",
    path: "/v1/responses",
    list: "input",
    assembler: () => new ResponseAssembler(),
  },
];
const SHORT: Readonly<Record<string, string>> = { anthropic: "anthropic-messages", openai: "openai-chat" };

/** The wire of a name; undefined where there is none. */
export function wireNamed(name: string): Wire | undefined {
  const full = Object.hasOwn(SHORT, name) ? SHORT[name] : name;
  return WIRES.find((wire) => wire.name === full);
}
/** The wire that a request's headers tell: Anthropic's clients always send their version. */
export function wireOf(headers: RawHeaders): Wire {
  return headerValue(headers, "anthropic-version") === undefined ? WIRES[1]! : WIRES[0]!;
}

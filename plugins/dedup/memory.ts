import type { DecisionBook } from "@tokenman/plugin-sdk";
import type { Gaps } from "./lifetime.ts";
import type { Fingerprint } from "./prompt.ts";
import type { WatchedConversation } from "./watch.ts";

/** What is known of a conversation from its last request that was answered. */
export interface Conversation extends Fingerprint {
  /** When that request came, milliseconds since the epoch. */
  readonly at: number;
  readonly gaps: Gaps;
  /** The first message that was ever marked; from it on texts are sent as blocks. -1: none was. */
  readonly from: number;
  /** The message and block that were marked last; -1: none. */
  readonly message: number;
  readonly block: number;
  /** Input tokens that the provider counted, cached ones included; 0 where it did not say. */
  readonly tokens: number;
}

/** What is known of a system prompt with its tools, from whichever conversations. */
export interface Head {
  readonly at: number;
  readonly gaps: Gaps;
}

const MAX_ENTRIES = 10_000;

/**
 * What requests were seen. In memory, bounded, the oldest forgotten first; of conversations that are marked also among the
 * decisions, so that they go on being marked after a restart. Not so what was seen once: after a restart it is seen
 * anew, which costs one request's hints.
 */
export class Memory {
  readonly #book: DecisionBook;
  readonly #heads = new Map<string, Head>();
  readonly #conversations = new Map<string, Conversation>();
  readonly #watched = new Map<string, WatchedConversation>();

  constructor(book: DecisionBook) {
    this.#book = book;
  }

  head(key: string): Head | undefined {
    return this.#heads.get(key);
  }
  sawHead(key: string, head: Head): void {
    keep(this.#heads, key, head);
  }
  /** Of those with hints of the client's own. */
  watched(key: string): WatchedConversation | undefined {
    return this.#watched.get(key);
  }
  sawWatched(key: string, conversation: WatchedConversation): void {
    keep(this.#watched, key, conversation);
  }
  /** A promise only where the disk must be asked. */
  conversation(key: string): Conversation | undefined | Promise<Conversation | undefined> {
    const known = this.#conversations.get(key);
    if (known !== undefined) return known;
    const found = this.#book.find(key);
    return found instanceof Promise ? found.then(parsed) : parsed(found);
  }
  sawConversation(key: string, conversation: Conversation): void {
    keep(this.#conversations, key, conversation);
    if (conversation.from >= 0) this.#book.set(key, written(conversation));
  }
}

function keep<T>(map: Map<string, T>, key: string, value: T): void {
  map.delete(key);
  map.set(key, value);
  if (map.size > MAX_ENTRIES) map.delete(map.keys().next().value!);
}

function written({ gaps, ...c }: Conversation): string {
  const { turns, within5m, within1h } = gaps;
  return JSON.stringify([
    c.at,
    turns,
    within5m,
    within1h,
    c.from,
    c.message,
    c.block,
    c.tokens,
    c.bytes,
    c.tail,
    c.tools,
    c.system,
    c.model,
  ]);
}

type Written = [
  at: number,
  turns: number,
  within5m: number,
  within1h: number,
  from: number,
  message: number,
  block: number,
  tokens: number,
  bytes: number,
  tail: string,
  tools: string,
  system: string,
  model: string,
];

/** What another version wrote in another form is as good as nothing. */
function parsed(text: string | undefined): Conversation | undefined {
  if (text === undefined) return undefined;
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (!Array.isArray(list) || list.length !== 13) return undefined;
  const isRight = list.every((value, index) => typeof value === (index < 9 ? "number" : "string"));
  if (!isRight) return undefined;
  const [at, turns, within5m, within1h, from, message, block, tokens, bytes, tail, tools, system, model] =
    list as Written;
  return {
    at,
    gaps: { turns, within5m, within1h },
    from,
    message,
    block,
    tokens,
    bytes,
    tail,
    tools,
    system,
    model,
  };
}

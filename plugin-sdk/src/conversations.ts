import crypto from "node:crypto";
import type { DecisionBook } from "./decisions.ts";
import type { Usage } from "./dialect.ts";
import type { Attempt, Exchange } from "./exchange.ts";
import { priceFormat } from "./pricing.ts";
import { hashOfMessages, type Turns, turnsOf } from "./turns.ts";

/** What is known of a conversation's last request that was answered. */
export interface LastTurn {
  /** When its answer had come, milliseconds since the epoch: the provider has read its cache no later. */
  readonly at: number;
  /** The model that the client asked for. */
  readonly model: string;
  /** Who answered, and the format by which that is priced. */
  readonly provider: string;
  readonly format: string;
  /** How long the provider keeps what it has cached of it. */
  readonly ttlMs: number;
  /** How often the conversation went on after that time was over. */
  readonly pauses: number;
  /** The provider's own figures; undefined where it gave none. */
  readonly inputTokens: number | undefined;
  readonly cachedTokens: number | undefined;
}

/** Where a conversation is cut: what is between its opening and the message `at` is not sent, but a text in its place. */
export interface Cut {
  readonly at: number;
  /** Hashes of what that message says, and of what is left out; see {@link hashOfMessages}. */
  readonly start: string;
  readonly left: string;
  /** Tokens that each request is shorter by. */
  readonly tokens: number;
  readonly text: string;
  /** Whether that text may be written down: what is not is forgotten with the process. */
  readonly isKept: boolean;
}

export interface Conversation {
  readonly last: LastTurn | undefined;
  readonly cut: Cut | undefined;
}

const MAX_CONVERSATIONS = 10_000;
const NOTHING: Conversation = Object.freeze({ last: undefined, cut: undefined });

/**
 * What a plugin that cuts knows of conversations: in memory, bounded, the least recently used forgotten first; of long
 * ones also among its decisions, so that a restart changes nothing.
 */
export class Conversations {
  readonly #book: DecisionBook;
  readonly #known = new Map<string, Conversation>();

  constructor(book: DecisionBook) {
    this.#book = book;
  }

  /** A promise only where the disk must be asked. */
  find(key: string): Conversation | Promise<Conversation> {
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const found = this.#book.find(key);
    if (found === undefined) return NOTHING;
    return found instanceof Promise ? found.then((text) => this.#read(key, text)) : this.#read(key, found);
  }
  /** What memory has. */
  get(key: string): Conversation {
    return this.#known.get(key) ?? NOTHING;
  }
  /**
   * Takes in what the provider made of a turn that has ended at `at`; false where it did not answer it. `isLong`: whether
   * the conversation may ever be cut, and so is worth writing down.
   */
  ended(
    exchange: Exchange,
    { key, isLong, askedAt }: { readonly key: string; readonly isLong: boolean; readonly askedAt: number },
    at: number,
  ): boolean {
    const answered = exchange.attempts.findLast(
      ({ result }) => result?.kind === "reply" && result.status >= 200 && result.status < 300,
    );
    if (answered === undefined) return false;
    const { last, cut } = this.get(key);
    this.#keep(key, { last: lastTurnOf(exchange, answered, last, { askedAt, at }), cut }, isLong);
    return true;
  }
  decided(key: string, cut: Cut | undefined): void {
    this.#keep(key, { last: this.get(key).last, cut }, true);
  }

  #read(key: string, text: string | undefined): Conversation {
    // What was decided while the disk was asked stands.
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const found = text === undefined ? NOTHING : parsed(text);
    if (found !== NOTHING) this.#remember(key, found);
    return found;
  }
  #keep(key: string, conversation: Conversation, writes: boolean): void {
    this.#remember(key, conversation);
    if (writes) this.#book.set(key, written(conversation));
  }
  #remember(key: string, conversation: Conversation): void {
    this.#known.delete(key);
    this.#known.set(key, conversation);
    if (this.#known.size > MAX_CONVERSATIONS) this.#known.delete(this.#known.keys().next().value!);
  }
}

/** What is done about a request of a conversation by whoever cuts it. */
export interface ConversationReader {
  readonly conversations: Conversations;
  /** Its turns cannot be told. */
  unreadable(exchange: Exchange): void;
  read(exchange: Exchange, turns: Turns, key: string, known: Conversation): Promise<void> | undefined;
}

/** Hands `reader` a request's turns and what is known of its conversation; nothing where there is no turn to cut at. */
export function readConversation(exchange: Exchange, reader: ConversationReader): Promise<void> | undefined {
  const turns = turnsOf(exchange);
  if (turns === undefined) {
    reader.unreadable(exchange);
    return undefined;
  }
  if (turns.starts.length === 0) return undefined;
  const key = conversationKey(exchange, turns);
  const found = reader.conversations.find(key);
  if (found instanceof Promise)
    return exchange.wait(found).then((known) => reader.read(exchange, turns, key, known));
  return reader.read(exchange, turns, key, found);
}

/**
 * Tells conversations apart: one session may have many, an agent and its helpers, which open differently. The marks of
 * the provider's cache, which a client moves, make no difference.
 */
export function conversationKey(
  { project, session, dialect, segments }: Exchange,
  { opening }: Turns,
): string {
  const text = `${project}\n${session}\n${dialect?.name}\n${hashOfMessages(segments, 0, opening)}`;
  return crypto.hash("sha256", text, "base64url").slice(0, 22);
}

const FIVE_MINUTES_MS = 300_000;
const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/**
 * What is to be known of the last turn, from an attempt that answered it: asked and answered at these times. `before`: what
 * was known until then.
 */
function lastTurnOf(
  exchange: Exchange,
  attempt: Attempt,
  before: LastTurn | undefined,
  { askedAt, at }: { readonly askedAt: number; readonly at: number },
): LastTurn {
  const usage = attempt.usage?.source === "provider" ? attempt.usage : undefined;
  const wasPaused = before !== undefined && askedAt - before.at >= before.ttlMs;
  return {
    at,
    model: exchange.description?.model ?? "",
    provider: attempt.provider.name,
    format: priceFormat(exchange, attempt.provider),
    ttlMs: lifetimeOf(exchange, usage, before),
    pauses: (before?.pauses ?? 0) + (wasPaused ? 1 : 0),
    inputTokens: usage === undefined ? undefined : cachedOf(usage) + usage.inputTokens,
    cachedTokens: usage === undefined ? undefined : cachedOf(usage),
  };
}

function cachedOf({ cacheReadTokens, cacheWrite5mTokens, cacheWrite1hTokens }: Usage): number {
  return cacheReadTokens + cacheWrite5mTokens + cacheWrite1hTokens;
}

/**
 * How long the provider keeps the conversation: Anthropic as it billed the writing, else as the request asks; others, which
 * promise nothing, are taken to keep it an hour, the longest that OpenAI documents, or a day where the request asks so.
 */
function lifetimeOf(exchange: Exchange, usage: Usage | undefined, before: LastTurn | undefined): number {
  const { body } = exchange.request;
  if (exchange.dialect?.format !== "anthropic") return body?.includes('"24h"') === true ? DAY_MS : HOUR_MS;
  if (usage !== undefined && usage.cacheWrite1hTokens > 0) return HOUR_MS;
  if (usage !== undefined && usage.cacheWrite5mTokens > 0) return FIVE_MINUTES_MS;
  return before?.ttlMs ?? (body?.includes('"1h"') === true ? HOUR_MS : FIVE_MINUTES_MS);
}

type Written = [
  at: number,
  ttlMs: number,
  pauses: number,
  inputTokens: number,
  cachedTokens: number,
  model: string,
  provider: string,
  format: string,
];
type WrittenCut = [at: number, tokens: number, start: string, left: string, text: string];

/** -1: unknown. */
function written({ last, cut }: Conversation): string {
  const turn: Written | [] =
    last === undefined
      ? []
      : [
          last.at,
          last.ttlMs,
          last.pauses,
          last.inputTokens ?? -1,
          last.cachedTokens ?? -1,
          last.model,
          last.provider,
          last.format,
        ];
  const made: WrittenCut | [] =
    cut?.isKept !== true ? [] : [cut.at, cut.tokens, cut.start, cut.left, cut.text];
  return JSON.stringify([turn, made]);
}

/** What another version wrote in another form is as good as nothing. */
function parsed(text: string): Conversation {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return NOTHING;
  }
  if (!Array.isArray(value) || value.length !== 2) return NOTHING;
  const [turn, made] = value as unknown[];
  return {
    last: hasShape<Written>(turn, 5, 3) ? lastOf(turn) : undefined,
    cut: hasShape<WrittenCut>(made, 2, 3) ? cutOf(made) : undefined,
  };
}

/** Whether it is a list of so many numbers and then so many texts. */
function hasShape<T>(value: unknown, numbers: number, texts: number): value is T {
  if (!Array.isArray(value) || value.length !== numbers + texts) return false;
  return value.every((item, index) => typeof item === (index < numbers ? "number" : "string"));
}

function lastOf([at, ttlMs, pauses, input, cached, model, provider, format]: Written): LastTurn {
  const inputTokens = input < 0 ? undefined : input;
  const cachedTokens = cached < 0 ? undefined : cached;
  return { at, ttlMs, pauses, inputTokens, cachedTokens, model, provider, format };
}

function cutOf([at, tokens, start, left, text]: WrittenCut): Cut {
  return { at, tokens, start, left, text, isKept: true };
}

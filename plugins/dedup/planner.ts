import {
  type Exchange,
  mayTouch,
  requestBodies,
  type SavingsGuard,
  type Slot,
  slot,
} from "@tokenman/plugin-sdk";
import { type Marks, marksFor } from "./anthropic.ts";
import type { Break } from "./hit-rate.ts";
import { NO_GAPS } from "./lifetime.ts";
import { lastUserMessage } from "./marks.ts";
import type { Conversation, Memory } from "./memory.ts";
import { minimumOf } from "./minimums.ts";
import { cacheKeyFor, isConversation } from "./openai.ts";
import type { HintOutcome } from "./outcomes.ts";
import {
  continues,
  conversationKey,
  type Fingerprint,
  fingerprintOf,
  headKey,
  type PromptParts,
  partsOf,
} from "./prompt.ts";
import type { DedupConfig } from "./schema.ts";
import type { ToolOrders } from "./tool-order.ts";
import { goesOn, type WatchedConversation, type WatchedTurn, watchedKey, watchedTurn } from "./watch.ts";

/** No model caches less than 512 tokens, and nothing is gained by what follows for a short request. */
const MIN_BYTES = 2_560;
export type Vendor = "anthropic" | "openai";

/** What is to be done about a request, worked out once for all of its attempts. */
export interface Plan {
  readonly vendor: Vendor;
  /** Why it gets no hints; undefined: it may get some. */
  readonly why: HintOutcome | undefined;
  readonly parts: PromptParts;
  readonly marks: Marks | undefined;
  readonly cacheKey: string | undefined;
  readonly conversationKey: string;
  readonly headKey: string;
  readonly before: Conversation | undefined;
  /** What will be known of the conversation once the request was answered. */
  readonly after: Conversation;
  /** What changed since the turn before, so that the provider cannot find it. */
  readonly cause: Break | undefined;
}

/** A request with hints of the client's own: nothing is done about it, and what comes of them is measured. */
export interface Watch {
  readonly model: string;
  readonly conversationKey: string;
  readonly turn: WatchedTurn;
  readonly before: WatchedConversation | undefined;
  readonly cause: Break | undefined;
}

/** Set where the plan is to give no hints since the client gave some. */
export const Watched: Slot<Watch> = slot<Watch>("dedup.watch");

export interface PlannerParts {
  readonly config: DedupConfig;
  readonly memory: Memory;
  readonly orders: ToolOrders;
  readonly guard: SavingsGuard | undefined;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

/** Tells what is to be done about a request, from what is known of those before it. */
export class Planner {
  readonly #parts: PlannerParts;

  constructor(parts: PlannerParts) {
    this.#parts = parts;
  }

  /** What is to be done, or why nothing is. A promise only where the disk must be asked. */
  plan(exchange: Exchange, vendor: Vendor): Plan | HintOutcome | Promise<Plan | HintOutcome> {
    const { body } = exchange.request;
    if (body === undefined) return "unreadable";
    if (body.length < MIN_BYTES) return "short";
    // As a string of its own, in quotes: within a text the quotes would be escaped.
    if (vendor === "anthropic" && requestBodies.includes(body, '"cache_control"')) {
      this.#watch(exchange, body);
      return "client";
    }
    const { config, guard, orders } = this.#parts;
    const touch = mayTouch(guard, exchange, "dedup", "hint");
    if (vendor === "anthropic" && touch === "none") return "untouched";
    if (vendor === "openai" && !isConversation(exchange, body))
      return touch === "new" ? "first" : "untouched";
    const parts = partsOf(exchange);
    const last =
      parts === undefined ? -1 : vendor === "openai" ? parts.turns.length - 1 : lastUserMessage(parts.turns);
    if (parts === undefined || last < 0) return "unreadable";
    const order =
      touch === "none" || !config.stable_tools
        ? undefined
        : orders.of(exchange, body, parts, touch === "new");
    return after(order, (found) => {
      // A session that has cost more than it saved gets no more hints; its tools stay in their order.
      if (touch !== "new" && vendor === "anthropic" && found === undefined) return "untouched";
      return this.#ordered(exchange, body, {
        vendor,
        parts: found === undefined ? parts : { ...parts, order: found },
        last,
        isUntouched: touch !== "new",
      });
    });
  }

  #ordered(
    exchange: Exchange,
    body: Buffer,
    {
      vendor,
      parts,
      last,
      isUntouched,
    }: Pick<Plan, "vendor" | "parts"> & { readonly last: number; readonly isUntouched: boolean },
  ): Plan | Promise<Plan> {
    const key = vendor === "openai" ? cacheKeyFor(exchange) : undefined;
    const why: HintOutcome | undefined = isUntouched ? "untouched" : key === "" ? "client" : undefined;
    const print = fingerprintOf(body, parts, last);
    const conversation = conversationKey(exchange, body, parts);
    return after(this.#parts.memory.conversation(conversation), (before) =>
      this.#planned(exchange, body, {
        vendor,
        why,
        parts,
        last,
        print,
        key: conversation,
        cacheKey: key,
        before,
      }),
    );
  }

  #watch(exchange: Exchange, body: Buffer): void {
    const parts = partsOf(exchange);
    const last = parts === undefined ? -1 : lastUserMessage(parts.turns);
    if (parts === undefined || last < 0) return;
    const { memory, now = Date.now } = this.#parts;
    const key = watchedKey(exchange);
    const turn = watchedTurn(exchange, body, parts, last, now());
    const before = memory.watched(key);
    const cause = before === undefined ? undefined : causeOf(before, turn, goesOn(exchange, before));
    exchange.set(Watched, { model: parts.model, conversationKey: key, turn, before, cause });
  }

  #planned(
    exchange: Exchange,
    body: Buffer,
    {
      vendor,
      why,
      parts,
      last,
      print,
      key,
      cacheKey,
      before,
    }: Pick<Plan, "vendor" | "why" | "parts" | "cacheKey" | "before"> & {
      readonly last: number;
      readonly print: Fingerprint;
      readonly key: string;
    },
  ): Plan {
    const { config, memory, now = Date.now } = this.#parts;
    const at = now();
    const head = headKey(exchange, print);
    const grew = before !== undefined && continues(body, parts, before);
    const cause = before === undefined ? undefined : causeOf(before, print, grew);
    const marks =
      vendor === "openai" || why !== undefined
        ? undefined
        : marksFor(
            parts,
            { print, last, before, repeats: grew && cause === undefined, head: memory.head(head) },
            {
              repeatMs: config.ttl_seconds * 1_000,
              mayTakeHour: config.one_hour,
              minTokens: minimumOf(parts.model, config.min_tokens),
            },
            at,
          );
    const next = marks?.conversation ?? { ...print, ...UNMARKED, at };
    const keys = { cacheKey, conversationKey: key, headKey: head };
    return { vendor, why, parts, marks, ...keys, before, after: next, cause };
  }
}

/** At once where the value is there. */
function after<T, R>(value: T | Promise<T>, go: (value: T) => R | Promise<R>): R | Promise<R> {
  return value instanceof Promise ? value.then(go) : go(value);
}

const UNMARKED = { gaps: NO_GAPS, from: -1, message: -1, block: -1, tokens: 0 };

type Printed = Pick<Fingerprint, "model" | "tools" | "system">;

/** What comes first in the provider's reading spoils all that follows. */
function causeOf(before: Printed, print: Printed, grew: boolean): Break | undefined {
  if (before.model !== print.model) return "model";
  if (before.tools !== print.tools) return "tools";
  if (before.system !== print.system) return "system";
  return grew ? undefined : "history";
}

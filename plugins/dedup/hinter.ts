import {
  type Attempt,
  claimProviderCache,
  type Exchange,
  type JsonPatch,
  type Logger,
  mayTouch,
  type Provider,
  requestBodies,
  type SavingsGuard,
  type Slot,
  slot,
  speaks,
  type Usage,
  type Verdict,
} from "@tokenman/plugin-sdk";
import { type Marks, markOf, marksFor, patchesFor } from "./anthropic.ts";
import { type Break, type HitRates, inputOf, type MeasuredTurn, resultOf } from "./hit-rate.ts";
import { FIVE_MINUTES_MS, HOUR_MS, NO_GAPS } from "./lifetime.ts";
import { lastUserMessage } from "./marks.ts";
import type { Conversation, Memory } from "./memory.ts";
import { minimumOf } from "./minimums.ts";
import { cacheKeyFor, isConversation } from "./openai.ts";
import type { HintOutcome, Outcomes } from "./outcomes.ts";
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
import { isVendor, type Takers } from "./takers.ts";
import { isMoved, orderPatches, type ToolOrders } from "./tool-order.ts";
import {
  goesOn,
  type WatchedConversation,
  type WatchedTurn,
  watchedConversation,
  watchedTurn,
} from "./watch.ts";

/** No model caches less than 512 tokens, and nothing is gained by what follows for a short request. */
const MIN_BYTES = 2_560;
/** OpenAI caches nothing shorter. */
const OPENAI_MIN_TOKENS = 1_024;

type Vendor = "anthropic" | "openai";

/** What is to be done about a request, worked out once for all of its attempts. */
interface Plan {
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
interface Watch {
  readonly model: string;
  readonly conversationKey: string;
  readonly turn: WatchedTurn;
  readonly before: WatchedConversation | undefined;
  readonly cause: Break | undefined;
}

const Planned: Slot<Plan | "nothing"> = slot<Plan | "nothing">("dedup.plan");
const Watched: Slot<Watch> = slot<Watch>("dedup.watch");
/** On attempts that went out with hints. */
const Hinted: Slot<boolean> = slot<boolean>("dedup.hinted");

export interface HinterParts {
  readonly config: DedupConfig;
  readonly memory: Memory;
  readonly orders: ToolOrders;
  readonly outcomes: Outcomes;
  readonly rates: HitRates;
  readonly takers: Takers;
  readonly guard: SavingsGuard | undefined;
  readonly log: Logger;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

/**
 * Hints each attempt at the provider that takes them, remembers what was answered, and measures what came of it. At the
 * last moment before a request goes out: what other plugins made of it is final then.
 */
export class Hinter {
  readonly #parts: HinterParts;
  readonly #keyProviders: ReadonlySet<string>;

  constructor(parts: HinterParts) {
    this.#parts = parts;
    this.#keyProviders = new Set(parts.config.prompt_cache_key_providers);
  }

  readonly beforeUpstream = (
    exchange: Exchange,
    attempt: Attempt,
  ): Promise<Verdict | undefined> | Verdict | undefined => {
    const vendor = VENDORS.get(exchange.dialect?.name ?? "");
    const known = exchange.get(Planned);
    if (vendor === undefined || known === "nothing") return undefined;
    if (known !== undefined) this.#hint(exchange, attempt, known);
    else {
      const plan = this.#plan(exchange, vendor);
      if (plan instanceof Promise)
        return exchange.wait(plan).then((found) => this.#begin(exchange, attempt, found));
      this.#begin(exchange, attempt, plan);
    }
    return undefined;
  };

  readonly attemptEnd = (_exchange: Exchange, attempt: Attempt): void => {
    if (attempt.get(Hinted) !== true || attempt.status === undefined) return;
    const { takers, log } = this.#parts;
    const { name } = attempt.provider;
    if (takers.ended(attempt.provider, attempt.status))
      log.warn(
        { provider: name, status: attempt.status },
        `${name} refused the first request with cache hints: it gets none for ten minutes`,
      );
  };

  readonly settled = (exchange: Exchange): void => {
    const plan = exchange.get(Planned);
    const watch = plan === "nothing" ? exchange.get(Watched) : undefined;
    if (plan === undefined || (plan === "nothing" && watch === undefined)) return;
    const answered = exchange.attempts.findLast(
      ({ result }) => result?.kind === "reply" && result.status >= 200 && result.status < 300,
    );
    if (answered === undefined) return;
    if (plan === "nothing") this.#sawWatched(exchange, watch!, answered);
    else this.#saw(exchange, plan, answered);
  };

  #saw(exchange: Exchange, plan: Plan, answered: Attempt): void {
    const { memory } = this.#parts;
    const { usage } = answered;
    const tokens = usage === undefined ? 0 : inputOf(usage);
    const { before, after, marks } = plan;
    const isHinted = answered.get(Hinted) === true;
    const unmarked = { message: -1, block: -1, from: before?.from ?? -1 };
    memory.sawConversation(plan.conversationKey, { ...after, ...(!isHinted && unmarked), tokens });
    if (marks !== undefined) memory.sawHead(plan.headKey, marks.nextHead);
    this.#measure(exchange, plan, answered);
  }

  #sawWatched(
    exchange: Exchange,
    { model, conversationKey: key, turn, before, cause }: Watch,
    answered: Attempt,
  ): void {
    const { usage } = answered;
    if (usage?.source !== "provider") return;
    this.#parts.memory.sawWatched(key, watchedConversation(turn, usage, before));
    const isLate = before !== undefined && turn.at - before.at > before.livesMs;
    const expected = before?.cachedTokens ?? 0;
    const result = resultOf(usage, expected, cause ?? (isLate ? "expired" : undefined));
    this.#add(exchange, usage, { model, hints: "client", result, expectedTokens: expected });
  }

  #begin(exchange: Exchange, attempt: Attempt, plan: Plan | HintOutcome): undefined {
    if (typeof plan !== "string") {
      exchange.set(Planned, plan);
      this.#hint(exchange, attempt, plan);
      return;
    }
    exchange.set(Planned, "nothing");
    this.#parts.outcomes.count(plan);
  }

  /** What is to be done, or why nothing is. A promise only where the disk must be asked. */
  #plan(exchange: Exchange, vendor: Vendor): Plan | HintOutcome | Promise<Plan | HintOutcome> {
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
    const key = conversationKey(exchange, body, parts);
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

  #hint(exchange: Exchange, attempt: Attempt, plan: Plan): void {
    const { provider } = attempt;
    const { marks, parts } = plan;
    const without = this.#without(provider, plan);
    const takesHour = isVendor(provider, "anthropic");
    const tool = without === undefined ? (marks?.tool ?? -1) : -1;
    const order = speaks(provider, plan.vendor)
      ? orderPatches(exchange, parts, tool, tool < 0 ? undefined : markOf(marks!.head!, takesHour))
      : [];
    const hints = without === undefined ? this.#hints(exchange, plan, takesHour) : [];
    if (order.length > 0) this.#parts.outcomes.reordered();
    if (order.length + hints.length > 0) attempt.patch([...order, ...hints]);
    const isHinted = hints.length > 0 || (order.length > 0 && tool >= 0 && isMoved(parts, tool));
    this.#parts.outcomes.count(
      without ?? (isHinted ? "hinted" : plan.before === undefined ? "first" : "dear"),
    );
    if (!isHinted) return;
    attempt.set(Hinted, true);
    // OpenAI caches without being told to: what it saves is not the key's doing alone.
    if (marks?.head !== undefined) claimProviderCache(exchange, "dedup");
  }

  /** Why an attempt at a provider gets no hints; undefined: it may get some. */
  #without(provider: Provider, { why, vendor, cacheKey }: Plan): HintOutcome | undefined {
    if (why !== undefined) return why;
    if (vendor === "openai" && cacheKey === undefined) return "unnamed";
    const takes =
      speaks(provider, vendor) &&
      (vendor === "anthropic" || isVendor(provider, vendor) || this.#keyProviders.has(provider.name)) &&
      this.#parts.takers.takes(provider);
    return takes ? undefined : "provider";
  }

  #hints(exchange: Exchange, { marks, parts, cacheKey }: Plan, takesHour: boolean): JsonPatch[] {
    const hints = marks === undefined ? [] : patchesFor(exchange, parts, marks, takesHour);
    if (cacheKey !== undefined) hints.push({ op: "add", pointer: "/prompt_cache_key", value: cacheKey });
    return hints;
  }

  #measure(
    exchange: Exchange,
    { vendor, why, before, after: now, cause, marks, parts }: Plan,
    answered: Attempt,
  ): void {
    const { usage } = answered;
    if (usage?.source !== "provider") return;
    const wasCached =
      before !== undefined &&
      (vendor === "openai" ? before.tokens >= OPENAI_MIN_TOKENS : before.message >= 0);
    const expected = wasCached ? before.tokens : 0;
    const livesMs = marks?.messages === "1h" ? HOUR_MS : FIVE_MINUTES_MS;
    const isLate = before !== undefined && now.at - before.at > livesMs;
    const result = resultOf(usage, expected, cause ?? (isLate ? "expired" : undefined));
    const hints = answered.get(Hinted) === true ? "dedup" : why === "client" ? "client" : "none";
    this.#add(exchange, usage, { model: parts.model, hints, result, expectedTokens: expected });
  }

  #add(
    exchange: Exchange,
    usage: Usage,
    found: Pick<MeasuredTurn, "model" | "hints" | "result" | "expectedTokens">,
  ): void {
    const turn: MeasuredTurn = {
      exchangeId: exchange.id,
      at: exchange.startedAt,
      project: exchange.project,
      session: exchange.session,
      ...found,
      inputTokens: inputOf(usage),
      readTokens: usage.cacheReadTokens,
      writtenTokens: usage.cacheWrite5mTokens + usage.cacheWrite1hTokens,
    };
    this.#parts.rates.add(turn);
    if (turn.result !== "hit" && turn.result !== "first")
      this.#parts.log.debug(turn, `the provider's prompt cache had little of this turn: ${turn.result}`);
  }
}

/** At once where the value is there. */
function after<T, R>(value: T | Promise<T>, go: (value: T) => R | Promise<R>): R | Promise<R> {
  return value instanceof Promise ? value.then(go) : go(value);
}

const VENDORS: ReadonlyMap<string, Vendor> = new Map([
  ["anthropic-messages", "anthropic"],
  ["openai-chat", "openai"],
  ["openai-responses", "openai"],
]);
const UNMARKED = { gaps: NO_GAPS, from: -1, message: -1, block: -1, tokens: 0 };

type Printed = Pick<Fingerprint, "model" | "tools" | "system">;

/** What comes first in the provider's reading spoils all that follows. */
function causeOf(before: Printed, print: Printed, grew: boolean): Break | undefined {
  if (before.model !== print.model) return "model";
  if (before.tools !== print.tools) return "tools";
  if (before.system !== print.system) return "system";
  return grew ? undefined : "history";
}

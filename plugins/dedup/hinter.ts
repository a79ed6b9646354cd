import {
  type Attempt,
  claimProviderCache,
  type Exchange,
  type Logger,
  mayTouch,
  requestBodies,
  type SavingsGuard,
  type Slot,
  slot,
  speaks,
  type Verdict,
} from "@tokenman/plugin-sdk";
import { type Marks, marksFor, patchesFor } from "./anthropic.ts";
import { type Break, type HitRates, inputOf, resultOf } from "./hit-rate.ts";
import { NO_GAPS } from "./lifetime.ts";
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

/** No model caches less than 512 tokens, and nothing is gained by what follows for a short request. */
const MIN_BYTES = 2_560;
const FIVE_MINUTES_MS = 300_000;
const HOUR_MS = 3_600_000;
/** OpenAI caches nothing shorter. */
const OPENAI_MIN_TOKENS = 1_024;

/** What is to be done about a request, worked out once for all of its attempts. */
interface Plan {
  readonly vendor: "anthropic" | "openai";
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

const Planned: Slot<Plan | "nothing"> = slot<Plan | "nothing">("dedup.plan");
/** On attempts that went out with hints. */
const Hinted: Slot<boolean> = slot<boolean>("dedup.hinted");

export interface HinterParts {
  readonly config: DedupConfig;
  readonly memory: Memory;
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
    if (plan === undefined || plan === "nothing") return;
    const answered = exchange.attempts.findLast(
      ({ result }) => result?.kind === "reply" && result.status >= 200 && result.status < 300,
    );
    if (answered === undefined) return;
    const { memory } = this.#parts;
    const { usage } = answered;
    const tokens = usage === undefined ? 0 : inputOf(usage);
    const { before, after, marks } = plan;
    const isHinted = answered.get(Hinted) === true;
    const unmarked = { message: -1, block: -1, from: before?.from ?? -1 };
    memory.sawConversation(plan.conversationKey, { ...after, ...(!isHinted && unmarked), tokens });
    if (marks !== undefined) memory.sawHead(plan.headKey, marks.nextHead);
    this.#measure(exchange, plan, answered);
  };

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
  #plan(exchange: Exchange, vendor: Plan["vendor"]): Plan | HintOutcome | Promise<Plan | HintOutcome> {
    const { body } = exchange.request;
    if (body === undefined) return "unreadable";
    if (body.length < MIN_BYTES) return "short";
    if (mayTouch(this.#parts.guard, exchange, "dedup", "hint") !== "new") return "untouched";
    // As a string of its own, in quotes: within a text the quotes would be escaped.
    if (vendor === "anthropic" && requestBodies.includes(body, '"cache_control"')) return "client";
    if (vendor === "openai" && !isConversation(exchange, body)) return "first";
    const cacheKey = vendor === "openai" ? cacheKeyFor(exchange) : undefined;
    if (cacheKey === "") return "client";
    const parts = partsOf(exchange);
    const last =
      parts === undefined ? -1 : vendor === "openai" ? parts.turns.length - 1 : lastUserMessage(parts.turns);
    if (parts === undefined || last < 0) return "unreadable";
    const print = fingerprintOf(body, parts, last);
    const key = conversationKey(exchange, body, parts);
    const found = this.#parts.memory.conversation(key);
    const finish = (before: Conversation | undefined): Plan =>
      this.#planned(exchange, body, { vendor, parts, last, print, key, cacheKey, before });
    return found instanceof Promise ? found.then(finish) : finish(found);
  }

  #planned(
    exchange: Exchange,
    body: Buffer,
    {
      vendor,
      parts,
      last,
      print,
      key,
      cacheKey,
      before,
    }: Pick<Plan, "vendor" | "parts" | "cacheKey" | "before"> & {
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
      vendor === "openai"
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
    const after = marks?.conversation ?? { ...print, ...UNMARKED, at };
    return { vendor, parts, marks, cacheKey, conversationKey: key, headKey: head, before, after, cause };
  }

  #hint(exchange: Exchange, attempt: Attempt, plan: Plan): void {
    const { outcomes, takers } = this.#parts;
    const { provider } = attempt;
    const { vendor, marks, parts, cacheKey } = plan;
    if (vendor === "openai" && cacheKey === undefined) {
      outcomes.count("unnamed");
      return;
    }
    const takes =
      speaks(provider, vendor) &&
      (vendor === "anthropic" || isVendor(provider, vendor) || this.#keyProviders.has(provider.name)) &&
      takers.takes(provider);
    if (!takes) {
      outcomes.count("provider");
      return;
    }
    const patches =
      marks === undefined ? [] : patchesFor(exchange, parts, marks, isVendor(provider, "anthropic"));
    if (cacheKey !== undefined) patches.push({ op: "add", pointer: "/prompt_cache_key", value: cacheKey });
    if (patches.length === 0) {
      outcomes.count(plan.before === undefined ? "first" : "dear");
      return;
    }
    attempt.patch(patches);
    attempt.set(Hinted, true);
    outcomes.count("hinted");
    // OpenAI caches without being told to: what it saves is not the key's doing alone.
    if (marks?.head !== undefined) claimProviderCache(exchange, "dedup");
  }

  #measure(
    exchange: Exchange,
    { vendor, before, after, cause, marks, parts }: Plan,
    answered: Attempt,
  ): void {
    const { usage } = answered;
    if (usage?.source !== "provider") return;
    const wasCached =
      before !== undefined &&
      (vendor === "openai" ? before.tokens >= OPENAI_MIN_TOKENS : before.message >= 0);
    const expected = wasCached ? before.tokens : 0;
    const livesMs = marks?.messages === "1h" ? HOUR_MS : FIVE_MINUTES_MS;
    const isLate = before !== undefined && after.at - before.at > livesMs;
    const result = resultOf(usage, expected, cause ?? (isLate ? "expired" : undefined));
    const turn = {
      exchangeId: exchange.id,
      at: exchange.startedAt,
      project: exchange.project,
      session: exchange.session,
      model: parts.model,
      result,
      inputTokens: inputOf(usage),
      readTokens: usage.cacheReadTokens,
      writtenTokens: usage.cacheWrite5mTokens + usage.cacheWrite1hTokens,
      expectedTokens: expected,
    };
    this.#parts.rates.add(turn);
    if (result !== "hit" && result !== "first")
      this.#parts.log.debug(turn, `the provider's prompt cache had little of this turn: ${result}`);
  }
}

const VENDORS: ReadonlyMap<string, Plan["vendor"]> = new Map([
  ["anthropic-messages", "anthropic"],
  ["openai-chat", "openai"],
  ["openai-responses", "openai"],
]);
const UNMARKED = { gaps: NO_GAPS, from: -1, message: -1, block: -1, tokens: 0 };

/** What comes first in the provider's reading spoils all that follows. */
function causeOf(before: Conversation, print: Fingerprint, grew: boolean): Break | undefined {
  if (before.model !== print.model) return "model";
  if (before.tools !== print.tools) return "tools";
  if (before.system !== print.system) return "system";
  return grew ? undefined : "history";
}

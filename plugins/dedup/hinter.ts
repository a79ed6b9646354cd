import {
  type Attempt,
  claimProviderCache,
  type Exchange,
  type JsonPatch,
  notePromptCache,
  type Provider,
  type Slot,
  slot,
  speaks,
  type Verdict,
} from "@tokenman/plugin-sdk";
import { markOf, patchesFor } from "./anthropic.ts";
import { inputOf } from "./hit-rate.ts";
import { Measurer, type MeasurerParts } from "./measurer.ts";
import type { HintOutcome, Outcomes } from "./outcomes.ts";
import { type Plan, Planner, type PlannerParts, type Vendor, Watched } from "./planner.ts";
import { isVendor, type Takers } from "./takers.ts";
import { isMoved, orderPatches } from "./tool-order.ts";

const Planned: Slot<Plan | "nothing"> = slot<Plan | "nothing">("dedup.plan");
/** On attempts that went out with hints. */
const Hinted: Slot<boolean> = slot<boolean>("dedup.hinted");

export interface HinterParts extends PlannerParts, MeasurerParts {
  readonly outcomes: Outcomes;
  readonly takers: Takers;
}

/**
 * Hints each attempt at the provider that takes them, remembers what was answered, and measures what came of it. At the
 * last moment before a request goes out: what other plugins made of it is final then.
 */
export class Hinter {
  readonly #parts: HinterParts;
  readonly #planner: Planner;
  readonly #measurer: Measurer;
  readonly #keyProviders: ReadonlySet<string>;

  constructor(parts: HinterParts) {
    this.#parts = parts;
    this.#planner = new Planner(parts);
    this.#measurer = new Measurer(parts);
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
      const plan = this.#planner.plan(exchange, vendor);
      if (plan instanceof Promise)
        return exchange.wait(plan).then((found) => this.#begin(exchange, attempt, found));
      this.#begin(exchange, attempt, plan);
    }
    return undefined;
  };

  readonly attemptEnd = (exchange: Exchange, attempt: Attempt): void => {
    const { result } = attempt;
    if (result?.kind === "reply" && isGood(result.status)) this.#measure(exchange, attempt);
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
      ({ result }) => result?.kind === "reply" && isGood(result.status),
    );
    if (answered === undefined) return;
    if (plan === "nothing") this.#measurer.watched(exchange, watch!, answered);
    else this.#saw(exchange, plan, answered);
  };

  /** In time for the exchange's row in the ledger. */
  #measure(exchange: Exchange, attempt: Attempt): void {
    const plan = exchange.get(Planned);
    const watch = plan === "nothing" ? exchange.get(Watched) : undefined;
    const found =
      plan === undefined || plan === "nothing"
        ? watch && this.#measurer.watchedResult(watch, attempt)
        : this.#measurer.plannedResult(plan, attempt);
    if (found !== undefined) notePromptCache(exchange, found.result);
  }

  #saw(exchange: Exchange, plan: Plan, answered: Attempt): void {
    const { memory } = this.#parts;
    const { usage } = answered;
    const tokens = usage === undefined ? 0 : inputOf(usage);
    const { before, after, marks } = plan;
    const isHinted = answered.get(Hinted) === true;
    const unmarked = { message: -1, block: -1, from: before?.from ?? -1 };
    memory.sawConversation(plan.conversationKey, { ...after, ...(!isHinted && unmarked), tokens });
    if (marks !== undefined) memory.sawHead(plan.headKey, marks.nextHead);
    this.#measurer.planned(exchange, plan, answered, isHinted);
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
}

function isGood(status: number): boolean {
  return status >= 200 && status < 300;
}

const VENDORS: ReadonlyMap<string, Vendor> = new Map([
  ["anthropic-messages", "anthropic"],
  ["openai-chat", "openai"],
  ["openai-responses", "openai"],
]);

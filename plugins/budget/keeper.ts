import {
  type Attempt,
  decline,
  type Exchange,
  type Logger,
  type Pricing,
  type ReplyInit,
  type Slot,
  slot,
  type Verdict,
} from "@tokenman/plugin-sdk";
import type { Books } from "./books.ts";
import { costOf, isFree, queryOf } from "./cost.ts";
import type { CostEstimate, Estimator, TokenGuess } from "./estimator.ts";
import { counts, type Limit } from "./limits.ts";
import { unpriced } from "./refusal.ts";
import type { Hold, Reservations } from "./reservations.ts";
import type { BudgetConfig } from "./schema.ts";

/** What is reserved for an exchange as a whole, all its attempts together. */
interface Account {
  readonly holds: Hold[];
  guess: TokenGuess | undefined;
}
/** What is reserved for one attempt, under limits of its provider and model. */
interface AttemptAccount {
  readonly estimate: CostEstimate | undefined;
  hold: Hold | undefined;
}

const Accounts: Slot<Account> = slot<Account>("budget.account");
const AttemptAccounts: Slot<AttemptAccount> = slot<AttemptAccount>("budget.attempt");

export interface KeeperParts {
  readonly reservations: Reservations;
  readonly pricing: Pricing;
  readonly estimator: Estimator;
  readonly books: Books;
  readonly log: Logger;
}

/**
 * The taps of one pipeline. Nothing is sent before the ledger has committed what it may cost; once it is known what it
 * did cost, that takes the reservation's place. Limits over everything are asked once for an exchange, and once more
 * where a further attempt may add to its cost; limits of a provider or model are asked for each attempt.
 */
export class Keeper {
  readonly #parts: KeeperParts;
  readonly #config: BudgetConfig;
  readonly #whole: readonly Limit[];
  readonly #parting: readonly Limit[];

  constructor(config: BudgetConfig, limits: readonly Limit[], parts: KeeperParts) {
    this.#config = config;
    this.#parts = parts;
    this.#whole = limits.filter(({ kind }) => kind === "total");
    this.#parting = limits.filter(({ kind }) => kind !== "total");
  }

  readonly request = async (exchange: Exchange): Promise<ReplyInit | undefined> => {
    const { dialect, format, request, description } = exchange;
    if (dialect === undefined && request.method === "POST") return this.#opaque(exchange);
    if (dialect?.generates !== true) return undefined;
    exchange.trackUsage();
    const account: Account = { holds: [], guess: undefined };
    exchange.set(Accounts, account);
    const model = description?.model;
    if (this.#whole.length === 0 || model === undefined || format === undefined) return undefined;
    const { estimator } = this.#parts;
    account.guess = await estimator.guess(exchange, model);
    // The route is not known yet. Where this name has no price, the one that will be sent may have one.
    const query = { model, provider: format.name, format: format.name, at: Date.now() };
    const estimate = estimator.cost(exchange, query, account.guess);
    if (estimate === undefined) return undefined;
    return this.#reserveWhole(exchange, account, exchange.id, estimate.held);
  };

  readonly beforeUpstream = async (exchange: Exchange, attempt: Attempt): Promise<Verdict | undefined> => {
    const account = exchange.get(Accounts);
    if (account === undefined) return undefined;
    const query = queryOf(exchange, attempt);
    const { estimator } = this.#parts;
    if (account.guess?.model !== query.model) account.guess = await estimator.guess(exchange, query.model);
    const estimate = estimator.cost(exchange, query, account.guess);
    const own: AttemptAccount = { estimate, hold: undefined };
    attempt.set(AttemptAccounts, own);
    if (estimate === undefined && !this.#mayBeUnpriced(query.model || "without a name"))
      return decline(exchange, attempt, "its price is not known", () => unpriced(exchange, query.model));
    const held = estimate?.held ?? 0;
    const missing = this.#missing(exchange, account, attempt, held);
    if (missing !== undefined) {
      const refusal = await this.#reserveWhole(
        exchange,
        account,
        `${exchange.id}+${attempt.number}`,
        missing,
      );
      if (refusal !== undefined) return decline(exchange, attempt, "the budget has no room", () => refusal);
    }
    const limits = this.#parting.filter((limit) => counts(limit, query.provider, query.model));
    if (limits.length === 0) return undefined;
    own.hold = this.#parts.reservations.reserve(exchange, `${exchange.id}:${attempt.number}`, held, limits);
    const refusal = await own.hold.refusal;
    if (refusal === undefined) return undefined;
    return decline(exchange, attempt, "its budget has no room", () => refusal);
  };

  /** What was not billed is given back at once: the next attempt may need the room. */
  readonly attemptEnd = async (_exchange: Exchange, attempt: Attempt): Promise<void> => {
    const hold = attempt.get(AttemptAccounts)?.hold;
    if (hold !== undefined && isFree(attempt)) await this.#parts.reservations.settle(hold, 0);
  };

  readonly settled = async (exchange: Exchange): Promise<void> => {
    const account = exchange.get(Accounts);
    if (account === undefined) return;
    const { pricing, books, reservations } = this.#parts;
    let total = 0;
    const settling: Promise<void>[] = [];
    for (const attempt of exchange.attempts) {
      const own = attempt.get(AttemptAccounts);
      if (own === undefined) continue;
      const cost = costOf(exchange, attempt, pricing, own.estimate?.expected ?? 0);
      total += cost;
      if (own.hold !== undefined) settling.push(reservations.settle(own.hold, cost));
      const { usage } = attempt;
      if (usage?.source === "provider" && usage.complete)
        books.outputs.learn(queryOf(exchange, attempt).model, usage.outputTokens);
    }
    // The first one takes the cost of all attempts.
    for (const hold of account.holds) {
      settling.push(reservations.settle(hold, total));
      total = 0;
    }
    await Promise.all(settling);
  };

  /** Undefined where there is room. */
  async #reserveWhole(
    exchange: Exchange,
    account: Account,
    id: string,
    nanoUsd: number,
  ): Promise<ReplyInit | undefined> {
    const hold = this.#parts.reservations.reserve(exchange, id, nanoUsd, this.#whole);
    // Before it is known whether it is granted: the exchange may end first.
    account.holds.push(hold);
    const refusal = await hold.refusal;
    if (refusal !== undefined) account.holds.splice(account.holds.indexOf(hold), 1);
    return refusal;
  }

  /**
   * What this attempt needs beyond what is reserved for the whole, when those before it may all be billed; undefined
   * where nothing is missing.
   */
  #missing(exchange: Exchange, account: Account, attempt: Attempt, held: number): number | undefined {
    if (this.#whole.length === 0) return undefined;
    let needed = held;
    for (const other of exchange.attempts)
      if (other !== attempt && !isFree(other)) needed += other.get(AttemptAccounts)?.estimate?.held ?? 0;
    const reserved = account.holds.reduce((sum, hold) => sum + hold.nanoUsd, 0);
    if (account.holds.length === 0) return needed;
    return needed > reserved ? needed - reserved : undefined;
  }

  #opaque(exchange: Exchange): ReplyInit | undefined {
    return this.#mayBeUnpriced(undefined) ? undefined : unpriced(exchange, undefined);
  }
  #mayBeUnpriced(model: string | undefined): boolean {
    const { books, log } = this.#parts;
    const allowed = this.#config.unpriced === "allow";
    if (books.sayOnce(model === undefined ? "opaque" : `model ${model}`)) {
      const what =
        model === undefined ? "requests that no dialect reads" : `the model ${model.slice(0, 100)}`;
      log.warn(
        { model },
        `${what} has no known price: ${allowed ? "no budget counts it" : "it is blocked"} (security.budget.unpriced)`,
      );
    }
    return allowed;
  }
}

import {
  type Attempt,
  decline,
  type Exchange,
  type Logger,
  type PriceQuery,
  type Pricing,
  priceQuery,
  type ReplyInit,
  type Slot,
  slot,
  type Verdict,
} from "@tokenman/plugin-sdk";
import type { Books } from "./books.ts";
import { costOf, isFree } from "./cost.ts";
import type { CostEstimate, Estimator, TokenGuess } from "./estimator.ts";
import type { Hold, WindowSet } from "./holds.ts";
import { counts, type Limit } from "./limits.ts";
import { unpriced } from "./refusal.ts";
import type { Reservations } from "./reservations.ts";
import type { BudgetConfig } from "./schema.ts";

/** What is reserved for an exchange as a whole, all its attempts together. */
interface Account {
  readonly holds: Hold[];
  /** Counted, or a bound: the model's, whose name it has. */
  guess: TokenGuess | undefined;
}
/** What is reserved for one attempt, under limits of its provider and model. */
interface AttemptAccount {
  estimate: CostEstimate | undefined;
  hold: Hold | undefined;
}

const Accounts: Slot<Account> = slot<Account>("budget.account");
const AttemptAccounts: Slot<AttemptAccount> = slot<AttemptAccount>("budget.attempt");
/** How many providers and models are remembered with their limits: models are named by clients. */
const MAX_KNOWN = 1_000;
const NO_LIMITS: readonly Limit[] = [];

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
 *
 * Only what has to wait is asynchronous: for the ledger, and for tokens to be counted. They are counted where a limit is
 * near; where it is far, a request holds a bound of what it costs.
 */
export class Keeper {
  readonly #parts: KeeperParts;
  readonly #config: BudgetConfig;
  readonly #whole: readonly Limit[];
  readonly #parting: readonly Limit[];
  readonly #known = new Map<string, readonly Limit[]>();

  constructor(config: BudgetConfig, limits: readonly Limit[], parts: KeeperParts) {
    this.#config = config;
    this.#parts = parts;
    this.#whole = limits.filter(({ kind }) => kind === "total");
    this.#parting = limits.filter(({ kind }) => kind !== "total");
  }

  readonly request = (exchange: Exchange): MaybePromise<ReplyInit | undefined> => {
    const { dialect, format, request, description } = exchange;
    if (dialect === undefined && request.method === "POST") return this.#opaque(exchange);
    if (dialect?.generates !== true) return undefined;
    exchange.trackUsage();
    const account: Account = { holds: [], guess: undefined };
    exchange.set(Accounts, account);
    const model = description?.model;
    if (this.#whole.length === 0 || model === undefined || format === undefined) return undefined;
    // The route is not known yet. Where this name has no price, the one that will be sent may have one.
    const query = { model, provider: format.name, format: format.name, at: Date.now() };
    const set = this.#parts.reservations.windows(this.#whole, exchange.project);
    const estimate = this.#quick(exchange, account, query);
    if (estimate === undefined) return undefined;
    if (estimate.isBound && !hasRoomForBound(set, estimate.held))
      return this.#countAndReserve(exchange, account, exchange.id, query, set);
    const { refusal } = this.#reserveWhole(
      exchange,
      account,
      exchange.id,
      estimate.held,
      set,
      estimate.isBound,
    );
    if (!estimate.isBound) return refusal;
    // Others were faster: counted, it may fit.
    return refusal.then((refused) =>
      refused === undefined
        ? undefined
        : this.#countAndReserve(exchange, account, `${exchange.id}~`, query, set),
    );
  };

  readonly beforeUpstream = (exchange: Exchange, attempt: Attempt): MaybePromise<Verdict | undefined> => {
    const account = exchange.get(Accounts);
    if (account === undefined) return undefined;
    const query = priceQuery(exchange, attempt);
    const estimate = this.#quick(exchange, account, query);
    const own: AttemptAccount = { estimate, hold: undefined };
    attempt.set(AttemptAccounts, own);
    if (estimate === undefined && !this.#mayBeUnpriced(query.model || "without a name"))
      return decline(exchange, attempt, "its price is not known", () => unpriced(exchange, query.model));
    const { reservations } = this.#parts;
    const limits = this.#limitsOf(query);
    const needs: Needs = {
      whole: this.#whole.length === 0 ? undefined : reservations.windows(this.#whole, exchange.project),
      parting: limits.length === 0 ? undefined : reservations.windows(limits, exchange.project),
    };
    const missing = needs.whole && this.#missing(exchange, account, attempt, estimate?.held ?? 0);
    if (missing === undefined && needs.parting === undefined) return undefined;
    return this.#admit(exchange, attempt, account, own, query, needs);
  };

  /** What was not billed is given back at once: the next attempt may need the room. */
  readonly attemptEnd = (_exchange: Exchange, attempt: Attempt): void => {
    const hold = attempt.get(AttemptAccounts)?.hold;
    if (hold !== undefined && isFree(attempt)) void this.#parts.reservations.settle(hold, 0);
  };

  readonly settled = (exchange: Exchange): MaybePromise<void> => {
    const account = exchange.get(Accounts);
    if (account === undefined) return undefined;
    // What nobody has billed, nor counted before, is counted now.
    const uncounted = account.guess?.isBound === true ? this.#uncounted(exchange) : [];
    if (uncounted.length > 0)
      return this.#countAll(exchange, account, uncounted).then(() => this.#settle(exchange, account));
    return this.#settle(exchange, account);
  };

  #settle(exchange: Exchange, { holds }: Account): MaybePromise<void> {
    const { books, reservations } = this.#parts;
    let total = 0;
    let waiting: Promise<unknown>[] | undefined;
    const settle = (hold: Hold, nanoUsd: number): void => {
      const settling = reservations.settle(hold, nanoUsd);
      if (settling !== undefined) waiting = [...(waiting ?? []), settling];
    };
    for (const attempt of exchange.attempts) {
      const own = attempt.get(AttemptAccounts);
      if (own === undefined) continue;
      const cost = this.#costOf(exchange, attempt, own) ?? own.estimate?.held ?? 0;
      total += cost;
      if (own.hold !== undefined) settle(own.hold, cost);
      const { usage } = attempt;
      if (usage?.source === "provider" && usage.complete)
        books.outputs.learn(priceQuery(exchange, attempt).model, usage.outputTokens);
    }
    // The first one takes the cost of all attempts.
    for (const hold of holds) {
      if (hold.state === "refused") continue;
      settle(hold, total);
      total = 0;
    }
    if (waiting !== undefined) return Promise.all(waiting).then(() => undefined);
  }
  /** The attempts that cost what was expected of them, which nobody knows. */
  #uncounted(exchange: Exchange): readonly Attempt[] {
    return exchange.attempts.filter((attempt) => {
      const own = attempt.get(AttemptAccounts);
      return own !== undefined && this.#costOf(exchange, attempt, own) === undefined;
    });
  }
  async #countAll(exchange: Exchange, account: Account, attempts: readonly Attempt[]): Promise<void> {
    for (const attempt of attempts) {
      const query = priceQuery(exchange, attempt);
      await this.#count(exchange, account, query.model);
      attempt.get(AttemptAccounts)!.estimate = this.#quick(exchange, account, query);
    }
  }
  /** Undefined where it is what was expected, and nobody has counted. */
  #costOf(exchange: Exchange, attempt: Attempt, { estimate }: AttemptAccount): number | undefined {
    return costOf(exchange, attempt, this.#parts.pricing, estimate === undefined ? 0 : estimate.expected);
  }

  /** What it may cost, by what is known without waiting; undefined where the price is not known. */
  #quick(exchange: Exchange, account: Account, query: PriceQuery): CostEstimate | undefined {
    const { estimator } = this.#parts;
    if (account.guess?.model !== query.model) account.guess = estimator.quick(exchange, query.model);
    return estimator.cost(exchange, query, account.guess);
  }
  async #count(exchange: Exchange, account: Account, model: string): Promise<void> {
    account.guess = await this.#parts.estimator.guess(exchange, model);
  }

  async #countAndReserve(
    exchange: Exchange,
    account: Account,
    id: string,
    query: PriceQuery,
    set: WindowSet,
  ): Promise<ReplyInit | undefined> {
    await this.#count(exchange, account, query.model);
    const estimate = this.#quick(exchange, account, query);
    if (estimate === undefined) return undefined;
    return this.#reserveWhole(exchange, account, id, estimate.held, set, false).refusal;
  }
  #reserveWhole(
    exchange: Exchange,
    account: Account,
    id: string,
    nanoUsd: number,
    set: WindowSet,
    isBound: boolean,
  ): Hold {
    const hold = this.#parts.reservations.reserve(exchange, id, nanoUsd, set, isBound);
    // Before it is known whether it is granted: the exchange may end first.
    account.holds.push(hold);
    return hold;
  }

  /** Reserves what an attempt needs. Where bounds find no room, it is counted. */
  async #admit(
    exchange: Exchange,
    attempt: Attempt,
    account: Account,
    own: AttemptAccount,
    query: PriceQuery,
    needs: Needs,
  ): Promise<Verdict | undefined> {
    let refused: Refused | undefined;
    const { estimate } = own;
    if (estimate?.isBound !== true || this.#fits(exchange, attempt, account, estimate, needs)) {
      refused = await this.#reserveBoth(exchange, attempt, account, own, needs, "");
      if (refused === undefined) return undefined;
    }
    if (estimate?.isBound === true) {
      await this.#count(exchange, account, query.model);
      own.estimate = this.#quick(exchange, account, query);
      refused = await this.#reserveBoth(exchange, attempt, account, own, needs, "~");
    }
    if (refused === undefined) return undefined;
    const { reply } = refused;
    return decline(exchange, attempt, refused.why, () => reply);
  }
  #fits(
    exchange: Exchange,
    attempt: Attempt,
    account: Account,
    { held }: CostEstimate,
    { whole, parting }: Needs,
  ): boolean {
    const missing = whole && this.#missing(exchange, account, attempt, held);
    return (
      (missing === undefined || hasRoomForBound(whole!, missing)) &&
      (parting === undefined || hasRoomForBound(parting, held))
    );
  }
  async #reserveBoth(
    exchange: Exchange,
    attempt: Attempt,
    account: Account,
    own: AttemptAccount,
    { whole, parting }: Needs,
    mark: string,
  ): Promise<Refused | undefined> {
    const { held, isBound } = own.estimate ?? { held: 0, isBound: false };
    const missing = whole && this.#missing(exchange, account, attempt, held);
    if (missing !== undefined) {
      const id = `${exchange.id}+${attempt.number}${mark}`;
      const reply = await this.#reserveWhole(exchange, account, id, missing, whole!, isBound).refusal;
      if (reply !== undefined) return { reply, why: "the budget has no room" };
    }
    if (parting === undefined) return undefined;
    const id = `${exchange.id}:${attempt.number}${mark}`;
    own.hold = this.#parts.reservations.reserve(exchange, id, held, parting, isBound);
    const reply = await own.hold.refusal;
    return reply && { reply, why: "its budget has no room" };
  }

  /**
   * What this attempt needs beyond what is reserved for the whole, when those before it may all be billed; undefined
   * where nothing is missing.
   */
  #missing(exchange: Exchange, account: Account, attempt: Attempt, held: number): number | undefined {
    let needed = held;
    for (const other of exchange.attempts)
      if (other !== attempt && !isFree(other)) needed += other.get(AttemptAccounts)?.estimate?.held ?? 0;
    let reserved: number | undefined;
    for (const hold of account.holds) if (hold.state !== "refused") reserved = (reserved ?? 0) + hold.nanoUsd;
    if (reserved === undefined) return needed;
    return needed > reserved ? needed - reserved : undefined;
  }
  /** The limits that count what goes to this provider and model alone. */
  #limitsOf({ provider, model }: PriceQuery): readonly Limit[] {
    if (this.#parting.length === 0) return NO_LIMITS;
    const key = `${provider}\n${model}`;
    let limits = this.#known.get(key);
    if (limits === undefined) {
      if (this.#known.size >= MAX_KNOWN) this.#known.clear();
      limits = this.#parting.filter((limit) => counts(limit, provider, model));
      this.#known.set(key, limits);
    }
    return limits;
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

type MaybePromise<T> = T | Promise<T>;

/** Where room is needed for an attempt: in what counts everything, and in what counts its provider and model. */
interface Needs {
  readonly whole: WindowSet | undefined;
  readonly parting: WindowSet | undefined;
}
interface Refused {
  readonly reply: ReplyInit;
  readonly why: string;
}

function hasRoomForBound({ tallies }: WindowSet, nanoUsd: number): boolean {
  for (const tally of tallies) if (!tally.hasRoomForBound(nanoUsd)) return false;
  return true;
}

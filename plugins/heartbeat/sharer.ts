import {
  type AnswerKey,
  AnswerKeys,
  type Attempt,
  AttemptBill,
  addSaving,
  coalesced,
  type Exchange,
  type Flight,
  type Flights,
  type LedgerSaving,
  type Pricing,
  priceFormat,
  type Reply,
  type ReplyInit,
  replay,
  type Slot,
  slot,
  storedReply,
  storeNow,
} from "@tokenman/plugin-sdk";
import type { Answers } from "./answers.ts";
import { type PollRules, pollOf } from "./poll.ts";

const MAX_ANSWER_BYTES = 1024 * 1024;
const MAX_WAITS = 3;

/** A poll that goes out, and whether to another model. */
interface Out {
  readonly flight: Flight;
  readonly model: string | undefined;
}
const Part: Slot<Out> = slot<Out>("heartbeat.part");

/** The model that a poll is sent to in the place of the one asked for. */
export function modelOf(exchange: Exchange): string | undefined {
  return exchange.get(Part)?.model;
}

export interface SharerOptions {
  readonly rules: PollRules;
  readonly windowMs: number;
  /** Undefined: the one asked for. */
  readonly model: string | undefined;
  readonly answers: Answers;
  readonly flights: Flights;
  readonly pricing: Pricing | undefined;
  /** Keys the digests of long polls. */
  readonly secret: () => Buffer;
}

/** The taps of one effective config. */
export class Sharer {
  readonly #options: SharerOptions;
  readonly #keys: AnswerKeys;

  constructor(options: SharerOptions) {
    this.#options = options;
    this.#keys = new AnswerKeys({ scope: () => "heartbeat", secret: options.secret });
  }

  readonly request = (exchange: Exchange): ReplyInit | undefined | Promise<ReplyInit | undefined> => {
    if (exchange.noCompress) return undefined;
    const { rules } = this.#options;
    const poll = pollOf(exchange, rules, Date.now());
    if (poll === undefined) return undefined;
    const variant = this.#keys.variantOf(exchange);
    const { asked } = variant;
    if (asked.noStore) return undefined;
    return this.#answer(exchange, this.#keys.keyOf(variant, poll), asked.refresh, 0);
  };

  readonly response = (reply: Reply, exchange: Exchange): void => {
    const part = exchange.get(Part);
    if (part === undefined) return;
    part.flight.land(reply, MAX_ANSWER_BYTES);
    const { pricing } = this.#options;
    const asked = exchange.description?.model;
    if (
      part.model !== undefined &&
      asked !== undefined &&
      reply.attempt !== undefined &&
      pricing !== undefined
    )
      addSaving(
        exchange,
        new CheaperModel(reply.attempt, asked, priceFormat(exchange, reply.attempt.provider), pricing),
      );
  };

  readonly settled = (exchange: Exchange): void => {
    const part = exchange.get(Part);
    if (part === undefined) return;
    const stored = storedReply(exchange, part.flight);
    if (stored !== undefined) this.#options.answers.put(part.flight.key.id, stored);
    this.#options.flights.end(part.flight);
  };

  #answer(
    exchange: Exchange,
    key: AnswerKey,
    refresh: boolean,
    waits: number,
  ): ReplyInit | undefined | Promise<ReplyInit | undefined> {
    const { answers, flights, windowMs, pricing } = this.#options;
    const stored = refresh ? undefined : answers.find(key.id, windowMs);
    if (stored !== undefined) return replay(exchange, "heartbeat", stored, storeNow() - stored.at);
    const flight = refresh ? undefined : flights.find(key);
    const joined = flight?.follow(exchange);
    if (joined instanceof Promise) {
      return joined.then((late) => {
        if (late !== undefined) return coalesced(exchange, "heartbeat", late, pricing);
        if (exchange.signal.aborted) return undefined;
        return waits + 1 < MAX_WAITS
          ? this.#answer(exchange, key, refresh, waits + 1)
          : this.#goOut(exchange, key, false);
      });
    }
    if (joined !== undefined) return coalesced(exchange, "heartbeat", joined, pricing);
    return this.#goOut(exchange, key, !refresh || flights.find(key) === undefined);
  }
  #goOut(exchange: Exchange, key: AnswerKey, isShared: boolean): undefined {
    exchange.trackUsage();
    // A subscription's requests are not changed; not to send one changes none.
    const model = exchange.subscription ? undefined : this.#options.model;
    const isOther = model !== exchange.description?.model && exchange.description?.modelPointer !== undefined;
    const flight = this.#options.flights.begin(key, exchange, isShared);
    exchange.set(Part, { flight, model: isOther ? model : undefined });
  }
}

/** What it saved, or lost, to send a poll to another model: the same tokens at the price of the one asked for. */
class CheaperModel implements LedgerSaving {
  readonly kind = "compression";
  readonly plugin = "heartbeat";
  readonly tokens = 0;
  readonly #attempt: Attempt;
  readonly #asked: string;
  readonly #format: string;
  readonly #pricing: Pricing;

  constructor(attempt: Attempt, asked: string, format: string, pricing: Pricing) {
    this.#attempt = attempt;
    this.#asked = asked;
    this.#format = format;
    this.#pricing = pricing;
  }
  /** Known once the attempt is billed. */
  get nanoUsd(): number | undefined {
    const bill = this.#attempt.get(AttemptBill);
    if (bill?.usage === undefined || bill.cost === undefined) return undefined;
    const { provider, startedAt } = this.#attempt;
    const query = { model: this.#asked, provider: provider.name, format: this.#format, at: startedAt };
    const price = this.#pricing.price(query, { ...bill.usage, model: undefined });
    return price.priced ? Math.round(price.cost.total) - bill.cost.total : undefined;
  }
}

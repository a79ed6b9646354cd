import {
  type Attempt,
  billedRates,
  type CostByKind,
  type Exchange,
  type LedgerBill,
  type LedgerSaving,
  type Logger,
  type Pricing,
  priceQuery,
  providerCacheClaim,
  sentModel,
  type Tokenizer,
  type Usage,
} from "@tokenman/plugin-sdk";
import type { OutputSample } from "./output-sample.ts";

const NOTHING: LedgerBill = Object.freeze({
  usage: undefined,
  cost: undefined,
  estimated: false,
  unpriced: undefined,
});

const UNTOLD = "the reply told no usage";
/** Without a tokenizer: bytes of text to a token, as English and code come out on the average. */
const BYTES_PER_TOKEN = 4;

/** The bill of what passed through unread: a picture or a batch costs money, and nobody here knows how much. */
function unread({ request, format }: Exchange, { status }: Attempt): LedgerBill {
  const { method, path } = request;
  const isFree = format?.isFree?.(method, path) ?? method !== "POST";
  if (isFree || status === undefined || status < 200 || status > 299) return NOTHING;
  return { ...NOTHING, unpriced: "no dialect reads this path" };
}

/** Providers and models whose usages were said to be impossible: beyond so many nobody wants to read on. */
const MAX_FAULTY = 100;

export interface BillerOptions {
  readonly pricing: Pricing | undefined;
  readonly tokenizer: Tokenizer | undefined;
  readonly log: Pick<Logger, "warn">;
  /** Whose impossible usages the log has; outlives a reload. */
  readonly faulty: Set<string>;
}

/** Works out what attempts used and cost. */
export class Biller {
  readonly #pricing: Pricing | undefined;
  readonly #tokenizer: Tokenizer | undefined;
  readonly #log: Pick<Logger, "warn">;
  readonly #faulty: Set<string>;

  constructor({ pricing, tokenizer, log, faulty }: BillerOptions) {
    this.#pricing = pricing;
    this.#tokenizer = tokenizer;
    this.#log = log;
    this.#faulty = faulty;
  }

  /**
   * The bill of an attempt that has ended. At once where the provider told its usage, or billed nothing; a promise
   * where tokens must be counted, as for a stream that broke off. `winner` is the attempt whose reply the client was given.
   */
  bill(
    exchange: Exchange,
    attempt: Attempt,
    sample: OutputSample | undefined,
    winner: Attempt | undefined,
  ): LedgerBill | Promise<LedgerBill> {
    const { result, status, usage } = attempt;
    if (result === undefined || result.kind === "skipped") return NOTHING;
    if (exchange.dialect === undefined) return unread(exchange, attempt);
    if (!exchange.dialect.generates) return NOTHING;
    if (result.kind === "error") {
      return result.bytesSent
        ? { ...NOTHING, unpriced: "the request was sent, and its reply never came" }
        : NOTHING;
    }
    // It was at work when another attempt won, and bills at least what it was sent.
    if (usage === undefined && winner !== undefined && winner !== attempt && wasAtWork(attempt))
      return this.#estimated(exchange, attempt, undefined, undefined);
    if (status === undefined)
      return { ...NOTHING, unpriced: "the request was called off before its reply came" };
    if (usage?.complete === true) return this.#priced(exchange, attempt, usage, false);
    // Vendors do not bill what they refuse; a redirect is no answer.
    if (usage === undefined && (status < 200 || status > 299)) return NOTHING;
    // An error in the place of a stream's answer is a refusal, too, even after events that only announced one.
    if (usage === undefined && isRefused(attempt) && !(sample?.hasText() ?? false)) return NOTHING;
    const fault = usage === undefined ? attempt.usageFault : undefined;
    if (fault !== undefined) this.#report(exchange, attempt, fault);
    if (sample === undefined && usage === undefined)
      return {
        ...NOTHING,
        unpriced: fault === undefined ? UNTOLD : `the provider's usage cannot be true: ${fault}`,
      };
    return this.#estimated(exchange, attempt, usage, sample);
  }

  /** What the provider's own prompt cache saved, or lost: against the same tokens at the price of plain input. */
  providerCacheSaving(
    exchange: Exchange,
    attempt: Attempt,
    { usage, cost }: LedgerBill,
  ): LedgerSaving | undefined {
    if (usage === undefined || cost === undefined) return undefined;
    const { cacheReadTokens, cacheWrite5mTokens, cacheWrite1hTokens } = usage;
    const cached = cacheReadTokens + cacheWrite5mTokens + cacheWrite1hTokens;
    if (cached === 0) return undefined;
    const rates = this.#pricing && billedRates(this.#pricing, exchange, attempt, usage);
    if (rates === undefined) return undefined;
    const paid = cost.cacheRead + cost.cacheWrite5m + cost.cacheWrite1h;
    return {
      kind: "provider-cache",
      plugin: providerCacheClaim(exchange) ?? "provider",
      tokens: 0,
      nanoUsd: Math.round(cached * rates.input) - paid,
    };
  }

  async #estimated(
    exchange: Exchange,
    attempt: Attempt,
    known: Usage | undefined,
    sample: OutputSample | undefined,
  ): Promise<LedgerBill> {
    const model = sentModel(exchange, attempt) ?? "";
    const input = known === undefined ? await this.#input(exchange) : undefined;
    if (known === undefined && input === undefined)
      return { ...NOTHING, unpriced: `${UNTOLD}, and nobody counts tokens` };
    const output = sample === undefined ? 0 : await this.#output(model, sample);
    const usage: Usage = {
      source: "estimate",
      inputTokens: known?.inputTokens ?? input ?? 0,
      cacheReadTokens: known?.cacheReadTokens ?? 0,
      cacheWrite5mTokens: known?.cacheWrite5mTokens ?? 0,
      cacheWrite1hTokens: known?.cacheWrite1hTokens ?? 0,
      // What the provider has told so far is the least it can be.
      outputTokens: Math.max(known?.outputTokens ?? 0, output),
      reasoningTokens: known?.reasoningTokens ?? 0,
      serverTools: known?.serverTools ?? {},
      serviceTier: known?.serviceTier,
      ...(known?.speed !== undefined && { speed: known.speed }),
      ...(known?.region !== undefined && { region: known.region }),
      model: known?.model,
      complete: false,
    };
    return this.#priced(exchange, attempt, usage, true);
  }
  /** Once for each provider and model. */
  #report(exchange: Exchange, attempt: Attempt, fault: string): void {
    const model = sentModel(exchange, attempt);
    const provider = attempt.provider.name;
    const key = `${provider}\0${model}`;
    if (this.#faulty.has(key) || this.#faulty.size >= MAX_FAULTY) return;
    this.#faulty.add(key);
    this.#log.warn(
      { provider, model, exchange: exchange.id },
      `a usage that ${provider} told cannot be true, and is taken for none: ${fault}`,
    );
  }
  async #input(exchange: Exchange): Promise<number | undefined> {
    try {
      return (await this.#tokenizer?.estimate(exchange))?.tokens;
    } catch {
      return undefined;
    }
  }
  async #output(model: string, sample: OutputSample): Promise<number> {
    const text = sample.text();
    let tokens = Math.ceil(Buffer.byteLength(text) / BYTES_PER_TOKEN);
    try {
      tokens = (await this.#tokenizer?.count(model, [{ text }]))?.[0] ?? tokens;
    } catch {
      // The count by length stands.
    }
    return Math.ceil(tokens * sample.scale);
  }

  #priced(exchange: Exchange, attempt: Attempt, usage: Usage, estimated: boolean): LedgerBill {
    if (this.#pricing === undefined)
      return { usage, cost: undefined, estimated, unpriced: "no plugin knows prices" };
    const query = priceQuery(exchange, attempt);
    if (query.model === "" && usage.model === undefined)
      return { usage, cost: undefined, estimated, unpriced: "the model is not named" };
    const price = this.#pricing.price(query, usage);
    if (!price.priced) return { usage, cost: undefined, estimated, unpriced: price.reason };
    return { usage, cost: wholeCost(price.cost), estimated, unpriced: undefined };
  }
}

/** Whether it was called off with a good head, or before it had one. */
function wasAtWork(attempt: Attempt): boolean {
  const { result, status = 200 } = attempt;
  const isOff = result?.kind === "cancelled" || (result?.kind === "reply" && result.body === "aborted");
  return isOff && status < 300 && !isRefused(attempt);
}

/** Whether the provider said in its stream that it failed; one that was cut off before its first event said nothing. */
function isRefused({ streamError }: Attempt): boolean {
  return streamError !== undefined && streamError.type !== "cut";
}

/** Whole nano-dollars whose total is their sum, whoever priced them. */
function wholeCost(cost: CostByKind): CostByKind {
  const input = Math.round(cost.input);
  const cacheRead = Math.round(cost.cacheRead);
  const cacheWrite5m = Math.round(cost.cacheWrite5m);
  const cacheWrite1h = Math.round(cost.cacheWrite1h);
  const output = Math.round(cost.output);
  const serverTools = Math.round(cost.serverTools);
  const total = input + cacheRead + cacheWrite5m + cacheWrite1h + output + serverTools;
  return { input, cacheRead, cacheWrite5m, cacheWrite1h, output, serverTools, total };
}

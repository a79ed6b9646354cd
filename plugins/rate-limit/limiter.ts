import {
  type Attempt,
  decline,
  type Exchange,
  type Reply,
  type ReplyInit,
  type Slot,
  slot,
  type Tokenizer,
  type Verdict,
} from "@tokenman/plugin-sdk";
import { adviceOf } from "./advice.ts";
import type { Bucket } from "./bucket.ts";
import type { Buckets, Unit } from "./buckets.ts";
import type { Limit, Limits } from "./limits.ts";
import type { Quotas } from "./quotas.ts";
import type { RateLimitConfig } from "./schema.ts";

/** Bytes of JSON to a token, where nobody counts. */
const BYTES_PER_TOKEN = 4;
/** Shorter requests are not worth counting: the bill corrects what was taken. */
const SHORT_BYTES = 8 * 1024;
/** How many resolved limits are remembered: models and projects are named by clients. */
const MAX_KNOWN = 1_000;

/** Whose turn was foreseen within `max_wait` is not sent away because timers are late. */
const GRACE_MS = 1_000;

interface Share {
  readonly bucket: Bucket;
  readonly unit: Unit;
  readonly scope: string;
  readonly amount: number;
}
/** What an attempt took. */
const Taken: Slot<readonly Share[]> = slot<readonly Share[]>("rate-limit.taken");
const Learned: Slot<true> = slot<true>("rate-limit.learned");

export interface LimiterParts {
  readonly limits: Limits;
  readonly buckets: Buckets;
  readonly quotas: Quotas;
  readonly tokenizer: Tokenizer | undefined;
  readonly generation: number;
}

/** The taps of one pipeline. An attempt takes from all of its buckets, or from none. */
export class Limiter {
  readonly #config: RateLimitConfig;
  readonly #parts: LimiterParts;
  readonly #known = new Map<string, readonly Limit[]>();

  constructor(config: RateLimitConfig, parts: LimiterParts) {
    this.#config = config;
    this.#parts = parts;
  }

  readonly request = (exchange: Exchange): void => {
    if (exchange.dialect?.generates === true) exchange.trackUsage();
  };

  readonly beforeUpstream = (
    exchange: Exchange,
    attempt: Attempt,
  ): Verdict | undefined | Promise<Verdict | undefined> => {
    const limits = this.#limitsOf(exchange, attempt);
    const counted = exchange.dialect?.generates === true && limits.some(({ unit }) => unit === "tokens");
    if (!counted) return this.#admit(exchange, attempt, limits, 0);
    return this.#tokensOf(exchange, attempt).then((tokens) => this.#admit(exchange, attempt, limits, tokens));
  };

  /** The provider's word on what is left comes with its head. */
  readonly response = (reply: Reply, exchange: Exchange): void => {
    if (reply.attempt !== undefined) this.#learn(exchange, reply.attempt);
  };

  readonly attemptEnd = (exchange: Exchange, attempt: Attempt): void => {
    // Of replies that were not accepted no head was seen before.
    if (this.#config.adaptive) this.#learn(exchange, attempt);
    const taken = attempt.get(Taken);
    if (taken === undefined) return;
    const { result, usage } = attempt;
    const unsent = result?.kind === "skipped" || (result?.kind === "error" && !result.bytesSent);
    const refused = result?.kind === "reply" && result.status >= 400;
    for (const { bucket, unit, amount } of taken) {
      if (unsent || (refused && unit === "tokens")) bucket.give(amount);
      else if (unit === "tokens" && usage !== undefined) {
        const { inputTokens, cacheWrite5mTokens, cacheWrite1hTokens, outputTokens } = usage;
        const used = inputTokens + cacheWrite5mTokens + cacheWrite1hTokens + outputTokens;
        bucket.give(amount - (usage.complete ? used : Math.max(used, amount)));
      }
    }
  };

  #admit(
    exchange: Exchange,
    attempt: Attempt,
    limits: readonly Limit[],
    tokens: number,
  ): Verdict | undefined | Promise<Verdict | undefined> {
    const { buckets, generation } = this.#parts;
    const shares: Share[] = [];
    for (const { scope, unit, rate } of limits) {
      if (unit === "tokens" && tokens === 0) continue;
      const bucket = buckets.get(scope, unit, rate, generation);
      shares.push({ bucket, unit, scope, amount: unit === "tokens" ? tokens : 1 });
    }
    const delayMs = this.#delayMs(exchange, attempt, shares);
    if (delayMs === 0) {
      this.#take(exchange, attempt, shares);
      return undefined;
    }
    const { mode, max_wait } = this.#config;
    if (mode === "wait" && delayMs <= max_wait * 1_000)
      return exchange.wait(this.#wait(exchange, attempt, shares));
    return this.#refuse(exchange, attempt, shares);
  }

  #take(exchange: Exchange, attempt: Attempt, shares: readonly Share[]): void {
    for (const { bucket, amount } of shares) bucket.take(amount);
    if (this.#config.adaptive) this.#parts.quotas.take(accountOf(exchange, attempt));
    attempt.set(Taken, shares);
  }

  /** One bucket after the other, each in its own queue, until `max_wait` is over or nobody wants the answer. */
  async #wait(exchange: Exchange, attempt: Attempt, shares: readonly Share[]): Promise<Verdict | undefined> {
    const { signal } = attempt;
    const taken: Share[] = [];
    let leave = (): void => {};
    let late = false;
    const deadline = setTimeout(
      () => {
        late = true;
        leave();
      },
      this.#config.max_wait * 1_000 + GRACE_MS,
    );
    const gone = (): void => leave();
    signal.addEventListener("abort", gone);
    const over = (): boolean => late || signal.aborted;
    try {
      for (
        let ms = this.#pauseMs(exchange, attempt);
        ms > 0 && !over();
        ms = this.#pauseMs(exchange, attempt)
      ) {
        const { promise, resolve } = Promise.withResolvers<void>();
        const timer = setTimeout(resolve, Math.ceil(ms));
        leave = resolve;
        await promise;
        clearTimeout(timer);
      }
      for (const share of shares) {
        if (over()) break;
        const waiter = share.bucket.wait(share.amount);
        leave = waiter.leave;
        if (!(await waiter.served)) break;
        taken.push(share);
      }
    } finally {
      clearTimeout(deadline);
      signal.removeEventListener("abort", gone);
    }
    if (taken.length === shares.length && !over()) {
      if (this.#config.adaptive) this.#parts.quotas.take(accountOf(exchange, attempt));
      attempt.set(Taken, taken);
      return undefined;
    }
    for (const { bucket, amount } of taken) bucket.give(amount);
    // Nobody reads a verdict on an attempt that was called off.
    return signal.aborted ? undefined : this.#refuse(exchange, attempt, shares);
  }

  #delayMs(exchange: Exchange, attempt: Attempt, shares: readonly Share[]): number {
    return shares.reduce(
      (longest, { bucket, amount }) => Math.max(longest, bucket.delayMs(amount)),
      this.#pauseMs(exchange, attempt),
    );
  }
  #pauseMs(exchange: Exchange, attempt: Attempt): number {
    return this.#config.adaptive ? this.#parts.quotas.delayMs(accountOf(exchange, attempt)) : 0;
  }

  #refuse(exchange: Exchange, attempt: Attempt, shares: readonly Share[]): Verdict {
    const delayMs = this.#delayMs(exchange, attempt, shares);
    const full = shares.find(({ bucket, amount }) => bucket.delayMs(amount) === delayMs);
    const provider = attempt.provider.name;
    const limit = full === undefined ? `the provider ${provider}` : full.scope;
    const refusal = (): ReplyInit => {
      const seconds = Math.max(1, Math.ceil(delayMs / 1_000));
      const unit = full?.unit ?? "requests";
      const who =
        full === undefined ? `The provider ${provider} asks for a pause` : `Too many ${unit} (${limit})`;
      return exchange.refuse({
        code: "TM_RATE_LIMITED",
        message: `${who}: there is room again in ${seconds} s.`,
        headers: ["Retry-After", String(seconds)],
        details: { scope: full?.scope ?? `provider:${provider}`, unit },
      });
    };
    return decline(exchange, attempt, "its rate limit is reached", refusal, delayMs);
  }

  #learn(exchange: Exchange, attempt: Attempt): void {
    const { status, replyHeaders } = attempt;
    if (status === undefined || replyHeaders === undefined || attempt.get(Learned) === true) return;
    attempt.set(Learned, true);
    this.#parts.quotas.learn(accountOf(exchange, attempt), adviceOf(status, replyHeaders, Date.now()));
  }

  async #tokensOf(exchange: Exchange, attempt: Attempt): Promise<number> {
    const bytes = exchange.request.body?.length ?? 0;
    const { tokenizer } = this.#parts;
    const counted =
      bytes <= SHORT_BYTES
        ? undefined
        : await tokenizer?.estimate(exchange, modelOf(exchange, attempt), SHORT_BYTES);
    return Math.max(1, counted?.tokens ?? Math.ceil(bytes / BYTES_PER_TOKEN));
  }

  #limitsOf(exchange: Exchange, attempt: Attempt): readonly Limit[] {
    const { project } = exchange;
    const { name } = attempt.provider;
    const model = modelOf(exchange, attempt);
    const key = `${name}\n${model}\n${project}`;
    let limits = this.#known.get(key);
    if (limits === undefined) {
      if (this.#known.size >= MAX_KNOWN) this.#known.clear();
      limits = this.#parts.limits.of(project, name, model);
      this.#known.set(key, limits);
    }
    return limits;
  }
}

function modelOf(exchange: Exchange, { candidate }: Attempt): string {
  return candidate.model ?? exchange.description?.model ?? "";
}

/** Whose quota it is at the provider: that of the client's own credential, or of TokenMan's. */
function accountOf(exchange: Exchange, { provider, candidate }: Attempt): string {
  return `${provider.name}\n${candidate.credential.kind === "client" ? exchange.credentialHash : (candidate.account ?? "")}`;
}

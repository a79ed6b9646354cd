import {
  type Attempt,
  addSaving,
  billedRates,
  type CompressionKind,
  type Exchange,
  type Logger,
  type Pricing,
  providerCacheClaim,
  rewritesOf,
  type SavingsGuard,
  type Slot,
  slot,
  type Touch,
  totalInput,
  type Usage,
} from "@tokenman/plugin-sdk";
import { isHeldOut } from "./holdout.ts";
import { type BilledInput, cacheEffect, inputCost, savedBy } from "./price.ts";
import { addEffect, type Session, type Sessions } from "./sessions.ts";
import type { TrialSums } from "./trial-sums.ts";

const FIVE_MINUTES_MS = 300_000;
const HOUR_MS = 3_600_000;

/** The share that is held out in the exchange's project, where it is not the usual one. */
export const Share: Slot<number> = slot<number>("savings.share");
/** Set once a compressor of text has asked: whether the session is held out. */
const Held: Slot<boolean> = slot<boolean>("savings.held");

const Found: Slot<Session> = slot<Session>("savings.session");

export interface GuardParts {
  readonly sessions: Sessions;
  readonly pricing: Pricing | undefined;
  readonly trials: TrialSums;
  readonly holdout: number;
  readonly log: Logger;
}

/** Tells compressors how far they may go, and prices what they did once the provider has billed it. */
export class Guard implements SavingsGuard {
  readonly #parts: GuardParts;

  constructor(parts: GuardParts) {
    this.#parts = parts;
  }

  touch(exchange: Exchange, plugin: string, kind: CompressionKind): Touch {
    const session = this.#sessionOf(exchange);
    if (kind === "rewrite" && this.#isHeld(exchange, session)) return "none";
    return session.effects.get(plugin)?.isLoss === true ? "known" : "new";
  }

  /** Before the recorder's: it collects what is noted here. */
  readonly settled = (exchange: Exchange): void => {
    const rewrites = rewritesOf(exchange);
    const held = exchange.get(Held);
    const claim = providerCacheClaim(exchange);
    if (rewrites.length === 0 && held === undefined && claim === undefined) return;
    const session = this.#sessionOf(exchange);
    for (const attempt of exchange.attempts) {
      if (attempt.usage !== undefined) this.#account(exchange, attempt, session, { rewrites, held, claim });
    }
  };

  #account(
    exchange: Exchange,
    attempt: Attempt,
    session: Session,
    {
      rewrites,
      held,
      claim,
    }: {
      readonly rewrites: ReturnType<typeof rewritesOf>;
      readonly held: boolean | undefined;
      readonly claim: string | undefined;
    },
  ): void {
    const usage = attempt.usage!;
    const total = totalInput(usage);
    if (total === 0) return;
    const billed = this.#billed(exchange, attempt, usage);
    const amounts = billed === undefined ? undefined : savedBy(rewrites, billed, session.last);
    let savedTokens = 0;
    rewrites.forEach(({ plugin, newTokens, knownTokens }, index) => {
      const tokens = newTokens + knownTokens;
      savedTokens += tokens;
      const amount = amounts?.[index];
      const nanoUsd = amount === undefined ? undefined : Math.round(amount);
      addSaving(exchange, { kind: "compression", plugin, tokens: Math.round(tokens), nanoUsd });
      if (nanoUsd !== undefined) this.#judge(exchange, session, plugin, nanoUsd);
    });
    if (billed !== undefined && claim !== undefined)
      this.#judge(exchange, session, claim, Math.round(cacheEffect(billed)));
    if (billed !== undefined && held !== undefined && billed.rates.input > 0) {
      this.#parts.trials.add(
        { at: exchange.startedAt, session: keyOf(exchange), held },
        Math.max(0, total + savedTokens),
        inputCost(billed) / billed.rates.input,
      );
    }
    session.last = {
      at: attempt.startedAt,
      totalTokens: total,
      cachedTokens: usage.cacheReadTokens + usage.cacheWrite5mTokens + usage.cacheWrite1hTokens,
      ttlMs: usage.cacheWrite1hTokens > 0 ? HOUR_MS : FIVE_MINUTES_MS,
    };
  }

  #billed(exchange: Exchange, attempt: Attempt, usage: Usage): BilledInput | undefined {
    const { pricing } = this.#parts;
    const rates = pricing && billedRates(pricing, exchange, attempt, usage);
    return rates && { usage, rates, at: attempt.startedAt };
  }

  #judge(exchange: Exchange, session: Session, plugin: string, nanoUsd: number): void {
    const turned = addEffect(session, plugin, nanoUsd);
    if (turned === undefined) return;
    const { project, session: id } = exchange;
    const facts = { plugin, project, session: id, nanoUsd: session.effects.get(plugin)!.nanoUsd };
    if (turned === "loss")
      this.#parts.log.info(
        facts,
        `${plugin} has cost more than it saved in this session: it leaves what is new alone`,
      );
    else
      this.#parts.log.info(facts, `${plugin} has saved more than it cost in this session again: it goes on`);
  }

  /** Looked up once for all that ask. */
  #sessionOf(exchange: Exchange): Session {
    let session = exchange.get(Found);
    if (session === undefined) {
      session = this.#parts.sessions.of(keyOf(exchange));
      exchange.set(Found, session);
    }
    return session;
  }

  #isHeld(exchange: Exchange, session: Session): boolean {
    const known = exchange.get(Held);
    if (known !== undefined) return known;
    const share = exchange.get(Share) ?? this.#parts.holdout;
    session.held ??= isHeldOut(exchange, share);
    exchange.set(Held, session.held);
    return session.held;
  }
}

function keyOf({ project, session }: Exchange): string {
  return `${project}\0${session}`;
}

import {
  applyCut,
  type Conversation,
  type ConversationReader,
  type Conversations,
  type Cut,
  type CutReason,
  canCut,
  cutReason,
  cutSizes,
  type Decisions,
  type Exchange,
  type Logger,
  type ModelOverride,
  mayTouch,
  noteRewrite,
  type Pricing,
  readConversation,
  type SavingsGuard,
  type Slot,
  slot,
  standingCut,
  type Turns,
} from "@tokenman/plugin-sdk";
import type { SummaryCounts } from "./counts.ts";
import type { Draft, Drafts } from "./drafts.ts";
import { type Maker, NAME, type Wanted } from "./maker.ts";
import type { SummarizeConfig } from "./schema.ts";
import { whyNot } from "./worth.ts";

/** In less there is nothing worth a summary. */
const MIN_BYTES = 4_096;

/** A long conversation that is under way. */
interface Followed {
  readonly key: string;
  readonly isLong: boolean;
  readonly askedAt: number;
  /** The summary to ask for once the request is answered. */
  readonly wanted: Wanted | undefined;
}
const Followed: Slot<Followed> = slot<Followed>("summarize.followed");

export interface SummarizerParts {
  readonly config: SummarizeConfig;
  readonly maker: Maker;
  readonly conversations: Conversations;
  readonly drafts: Drafts;
  readonly decisions: Decisions;
  readonly counts: SummaryCounts;
  readonly pricing: Pricing | undefined;
  readonly guard: SavingsGuard | undefined;
  readonly override: ModelOverride | undefined;
  readonly log: Logger;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

/** Summarises one project's long conversations beside their requests, and sends what was made when that spoils nothing. */
export class Summarizer implements ConversationReader {
  readonly #parts: SummarizerParts;

  constructor(parts: SummarizerParts) {
    this.#parts = parts;
  }

  get conversations(): Conversations {
    return this.#parts.conversations;
  }
  unreadable(): void {
    this.#parts.counts.count("unreadable");
  }

  readonly request = (exchange: Exchange): Promise<void> | undefined => {
    const { body } = exchange.request;
    if (exchange.madeBy?.plugin === NAME) {
      exchange.trackUsage();
      return undefined;
    }
    if (body === undefined || body.length < MIN_BYTES || exchange.dialect?.generates !== true)
      return undefined;
    // Polling goes to another model, and is no conversation.
    if (this.#parts.override?.modelFor(exchange) !== undefined) return undefined;
    return readConversation(exchange, this);
  };

  readonly settled = (exchange: Exchange): void => {
    const { conversations, drafts, maker, now } = this.#parts;
    if (exchange.madeBy?.plugin === NAME) {
      maker.ended(exchange);
      return;
    }
    const followed = exchange.get(Followed);
    if (followed === undefined) return;
    const { key, wanted } = followed;
    if (!conversations.ended(exchange, followed, now())) return;
    if (wanted !== undefined && drafts.mayBegin(key, now())) void maker.make(exchange, key, wanted);
  };

  read(exchange: Exchange, turns: Turns, key: string, conversation: Conversation): Promise<void> | undefined {
    const { config, conversations, drafts, counts, guard, now } = this.#parts;
    const standing = standingCut(exchange, turns, conversation);
    // The opening and the summary are sent beside what follows the cut.
    const messages = turns.end - (standing === undefined ? 0 : standing.at - turns.opening - 1);
    const isLong = 2 * messages > config.max_messages;
    const draft = drafts.ready(key);
    if (standing === undefined && draft === undefined && !isLong) return undefined;
    const touch = mayTouch(guard, exchange, NAME);
    if (touch === "none") {
      counts.count("untouched");
      return undefined;
    }
    const spent = drafts.takeSpent(key);
    if (exchange.edited && !exchange.stands(`/${turns.list}/${turns.opening}`)) {
      counts.count("cut");
      this.#note(exchange, { newTokens: 0, knownTokens: 0 }, spent);
      return undefined;
    }
    exchange.trackUsage();
    if (standing !== conversation.cut && standing !== undefined) conversations.decided(key, standing);
    const known = { ...conversation, cut: standing };
    if (draft !== undefined && touch === "new") {
      const reason = this.#reason(exchange, turns, key, draft, known);
      if (reason !== undefined) {
        exchange.set(Followed, { key, isLong, askedAt: now(), wanted: undefined });
        return this.#begin(exchange, turns, key, draft, reason, spent);
      }
    }
    const isDue = touch === "new" && messages > config.max_messages && drafts.mayBegin(key, now());
    const wanted = isDue ? this.#wanted(exchange, turns, known, drafts.ready(key)) : undefined;
    exchange.set(Followed, { key, isLong, askedAt: now(), wanted });
    if (standing !== undefined) this.#apply(exchange, turns, standing, "repeated", spent);
    else this.#note(exchange, { newTokens: 0, knownTokens: 0 }, spent);
    return undefined;
  }

  /** Where a summary is to end, if one is worth its call: half of the messages stay, and the last turn whole. */
  #wanted(
    exchange: Exchange,
    turns: Turns,
    { last, cut: standing }: Conversation,
    draft: Draft | undefined,
  ): Wanted | undefined {
    const { config, counts, pricing, now } = this.#parts;
    const { segments } = exchange;
    const { starts, end, opening, answers } = turns;
    const at = starts.find((start) => 2 * (end - start) <= config.max_messages) ?? starts.at(-1)!;
    const from = standing?.at ?? opening;
    if (at <= Math.max(from, draft?.cut.at ?? 0)) return undefined;
    const sizes = cutSizes(segments, turns, from, at);
    const wish = { segments, from, at, sizes, answers, last, hasDraft: draft !== undefined };
    const objection = whyNot(wish, config, pricing, now());
    if (objection !== undefined) counts.count(objection);
    else if (!canCut(exchange, turns, at)) counts.count("unreadable");
    else return { turns, at, standing };
    return undefined;
  }

  /** Why a summary that waits may be sent now. One of another conversation than this has become is dropped. */
  #reason(
    exchange: Exchange,
    turns: Turns,
    key: string,
    { cut }: Draft,
    { last, cut: standing }: Conversation,
  ): CutReason | undefined {
    const { counts, drafts, pricing, now } = this.#parts;
    const from = standing?.at ?? turns.opening;
    if (cut.at <= from || standingCut(exchange, turns, { last, cut }) === undefined) {
      drafts.drop(key);
      return undefined;
    }
    const sizes = cutSizes(exchange.segments, turns, from, cut.at);
    const { text } = cut;
    const left = Math.max(0, sizes.left - text.length + (standing?.text.length ?? 0));
    const model = exchange.description?.model ?? "";
    const about = { last, model, answers: turns.answers, pricing, now: now() };
    const reason = cutReason({ left, kept: sizes.kept + text.length }, about);
    if (reason === undefined) counts.count("waits");
    return reason;
  }

  #begin(
    exchange: Exchange,
    turns: Turns,
    key: string,
    { cut, tokens }: Draft,
    reason: CutReason,
    spent: number | undefined,
  ): Promise<void> | undefined {
    const { conversations, decisions, drafts, log } = this.#parts;
    drafts.drop(key);
    conversations.decided(key, cut);
    const { project, session } = exchange;
    const facts = { project, session, reason, tokens: cut.tokens, messages: cut.at - turns.opening };
    log.info(facts, "a summary is sent in the place of a conversation's older part from now on");
    const apply = (): void => this.#apply(exchange, turns, cut, reason, spent, tokens);
    if (cut.isKept) return exchange.wait(decisions.flush()).then(apply);
    apply();
    return undefined;
  }

  #apply(
    exchange: Exchange,
    turns: Turns,
    cut: Cut,
    outcome: CutReason | "repeated",
    spent: number | undefined,
    summaryTokens = 0,
  ): void {
    applyCut(exchange, turns, cut);
    this.#parts.counts.count(outcome);
    const rewrite = { newTokens: 0 - summaryTokens, knownTokens: cut.tokens + summaryTokens };
    this.#note(exchange, { ...rewrite, ...(outcome !== "repeated" && { breaksPrefix: true }) }, spent);
  }

  #note(
    exchange: Exchange,
    rewrite: { readonly newTokens: number; readonly knownTokens: number; readonly breaksPrefix?: boolean },
    spentNanoUsd: number | undefined,
  ): void {
    if (rewrite.knownTokens === 0 && spentNanoUsd === undefined) return;
    const spent = spentNanoUsd === undefined ? {} : { spentNanoUsd };
    noteRewrite(this.#parts.guard, exchange, { plugin: NAME, ...rewrite, ...spent });
  }
}

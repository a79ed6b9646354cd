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
  mayTouch,
  measuredCut,
  noteRewrite,
  type Pricing,
  readConversation,
  type SavingsGuard,
  type Slot,
  slot,
  standingCut,
  type Tokenizer,
  type Turns,
} from "@tokenman/plugin-sdk";
import type { HistoryCounts } from "./counts.ts";

/** What the model reads in the place of what was left out. Another text here is another prefix: it breaks every cache. */
export const MARKER =
  "[Older messages of this conversation were left out here. What is needed of them can be looked up or asked for again.]";

/** In less there is nothing worth a cut. */
const MIN_BYTES = 4_096;
/** A cut leaves the window; the next one is made when there are so many times as many turns. */
const HYSTERESIS = 2;

/** The longest that a request waits to have counted what a cut saves. */
const COUNT_MS = 2_000;

/** A conversation that is under way, and whether it is long enough to be written down. */
interface Followed {
  readonly key: string;
  readonly isLong: boolean;
  readonly askedAt: number;
}
const Followed: Slot<Followed> = slot<Followed>("history.followed");

export interface WindowerParts {
  /** Turns. */
  readonly window: number;
  readonly conversations: Conversations;
  readonly decisions: Decisions;
  readonly counts: HistoryCounts;
  readonly tokenizer: Tokenizer | undefined;
  readonly pricing: Pricing | undefined;
  readonly guard: SavingsGuard | undefined;
  readonly log: Logger;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

/** Cuts one project's long conversations, each seldom and much, and repeats what it cut. */
export class Windower implements ConversationReader {
  readonly #parts: WindowerParts;

  constructor(parts: WindowerParts) {
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
    if (body === undefined || exchange.dialect?.generates !== true) return undefined;
    if (body.length < MIN_BYTES) return undefined;
    return readConversation(exchange, this);
  };

  /** What is remembered for the next turn: when this one was, and what the provider made of it. */
  readonly settled = (exchange: Exchange): void => {
    const followed = exchange.get(Followed);
    const { conversations, now } = this.#parts;
    if (followed !== undefined) conversations.ended(exchange, followed, now());
  };

  read(exchange: Exchange, turns: Turns, key: string, conversation: Conversation): Promise<void> | undefined {
    const { window, conversations, counts, guard } = this.#parts;
    const standing = standingCut(exchange, turns, conversation);
    const isLong = turnsSince(turns, standing) >= window;
    const mayBeCut = turnsSince(turns, standing) > HYSTERESIS * window;
    if (isLong || standing !== undefined) {
      exchange.set(Followed, { key, isLong, askedAt: this.#parts.now() });
      exchange.trackUsage();
    }
    if (standing === undefined && !mayBeCut) return undefined;
    const touch = mayTouch(guard, exchange, "history");
    if (touch === "none") {
      counts.count("untouched");
      return undefined;
    }
    // The client changed what is left out: that is another text under the same cut.
    if (standing !== conversation.cut && standing !== undefined) conversations.decided(key, standing);
    if (mayBeCut && touch === "new") {
      const at = turns.starts.at(-window)!;
      const reason = this.#reason(exchange, turns, at, conversation, standing);
      if (reason === undefined) counts.count("dear");
      else if (!canCut(exchange, turns, at)) counts.count("unreadable");
      else return exchange.wait(this.#cut(exchange, turns, key, at, reason));
    }
    if (standing !== undefined) this.#apply(exchange, turns, standing, "repeated");
    return undefined;
  }

  #reason(
    exchange: Exchange,
    turns: Turns,
    at: number,
    { last }: Conversation,
    standing: Cut | undefined,
  ): CutReason | undefined {
    const { pricing, now } = this.#parts;
    const sizes = cutSizes(exchange.segments, turns, standing?.at ?? turns.opening, at);
    const model = exchange.description?.model ?? "";
    return cutReason(sizes, { last, model, answers: turns.answers, pricing, now: now() });
  }

  /** Decides, writes down, and then does: what was sent once must be sent again, whatever comes between. */
  async #cut(exchange: Exchange, turns: Turns, key: string, at: number, reason: CutReason): Promise<void> {
    const { conversations, decisions, counts, tokenizer, log } = this.#parts;
    const before = conversations.get(key).cut;
    const made =
      tokenizer === undefined
        ? undefined
        : await measuredCut(exchange, turns, at, MARKER, tokenizer, COUNT_MS);
    const now = conversations.get(key);
    // Another request of the conversation was faster: two cuts would spoil each other.
    if (made === undefined || now.cut !== before) {
      if (made === undefined) counts.count("uncounted");
      const standing = standingCut(exchange, turns, now);
      if (standing !== undefined) this.#apply(exchange, turns, standing, "repeated");
      return;
    }
    conversations.decided(key, made);
    await decisions.flush();
    this.#apply(exchange, turns, made, reason);
    const { project, session } = exchange;
    const facts = { project, session, reason, tokens: made.tokens, messages: at - turns.opening };
    log.info(facts, "the oldest turns of a conversation are left out from now on");
  }

  #apply(exchange: Exchange, turns: Turns, cut: Cut, outcome: CutReason | "repeated"): void {
    const { counts, guard } = this.#parts;
    applyCut(exchange, turns, cut);
    counts.count(outcome);
    noteRewrite(guard, exchange, {
      plugin: "history",
      newTokens: 0,
      knownTokens: cut.tokens,
      ...(outcome !== "repeated" && { breaksPrefix: true }),
    });
  }
}

/** Turns that are sent beside the opening; before any cut the opening is one, too. */
function turnsSince({ starts }: Turns, cut: Cut | undefined): number {
  if (cut === undefined) return starts.length + 1;
  return starts.length - starts.findIndex((start) => start >= cut.at);
}

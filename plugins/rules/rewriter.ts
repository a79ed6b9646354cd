import crypto from "node:crypto";
import {
  type Attempt,
  addRewrite,
  addSaving,
  type DecisionBook,
  type Exchange,
  type Logger,
  mayTouch,
  type SavingsGuard,
  type Segment,
  type SegmentSpan,
  type Slot,
  slot,
  type Tokenizer,
  type Touch,
  textOf,
} from "@tokenman/plugin-sdk";
import type { RuleCounts, RuleOutcome } from "./counts.ts";
import { type Epoch, epochsFor, epochsText, parseEpochs, rulesAt } from "./epochs.ts";
import { type Known, type Memo, UNCHANGED } from "./memo.ts";
import { paragraphsOf } from "./prose.ts";
import { patchOf, type References } from "./references.ts";
import { isConcerned, rewrite } from "./rewrite.ts";
import { isJsonOnly, NO_RULES, type Ruleset } from "./ruleset.ts";

/** The longest that a request waits to have new texts counted; then they are left alone, for good. */
const COUNT_MS = 2_000;
const LEFT_ALONE = "=";

/** A segment that the rules would make shorter, seen for the first time. */
interface Fresh {
  readonly segment: Segment;
  readonly key: string;
  readonly from: string;
  readonly to: string;
}

interface Turn {
  readonly exchange: Exchange;
  readonly epochs: readonly Epoch[];
  /** Index of the first message that no earlier request had. */
  readonly fresh: number;
  readonly system: ReadonlySet<string>;
  /** Of `system`, where a rewrite depends on it; "" where not. */
  readonly context: string;
}

/** The epochs of an exchange whose results may be referred to. */
const Referring: Slot<Turn> = slot<Turn>("rules.referring");

export interface RewriterParts {
  readonly rules: Ruleset;
  readonly book: DecisionBook;
  readonly memo: Memo;
  readonly references: References;
  readonly counts: RuleCounts;
  readonly tokenizer: Tokenizer | undefined;
  readonly guard: SavingsGuard | undefined;
  readonly log: Logger;
}

/** Applies one project's rules to requests: to each segment once, at first sight, and then always the same. */
export class Rewriter {
  readonly #parts: RewriterParts;
  readonly #isQuick: boolean;

  constructor(parts: RewriterParts) {
    this.#parts = parts;
    this.#isQuick = isJsonOnly(parts.rules);
  }

  readonly request = (exchange: Exchange): Promise<void> | undefined => {
    const { body } = exchange.request;
    if (body === undefined || body.length === 0 || exchange.dialect?.generates !== true) return undefined;
    if (!this.#isQuick || mayHaveJson(body, this.#parts.rules)) return this.#begin(exchange, body);
    // Messages that were sent under other rules than today's stay as they were sent.
    if (!body.includes('"assistant"')) return undefined;
    const known = this.#parts.book.find(epochsKey(exchange));
    if (known instanceof Promise)
      return exchange
        .wait(known)
        .then((text) => (this.#hadMore(text) ? this.#begin(exchange, body) : undefined));
    return this.#hadMore(known) ? this.#begin(exchange, body) : undefined;
  };

  /** References to earlier results: last of all, when it is known what of them will be sent. */
  readonly beforeUpstream = (exchange: Exchange, attempt: Attempt): Promise<void> | undefined => {
    const turn = exchange.get(Referring);
    if (turn === undefined) return undefined;
    const found = this.#parts.references.find(exchange, turn.epochs);
    if (found.length === 0) return undefined;
    attempt.patch(found.map(patchOf));
    if (attempt.number > 1 || this.#parts.tokenizer === undefined) return undefined;
    const texts = found.flatMap(({ segment, text }) => [
      { text: segment.text, hash: segment.hash },
      { text },
    ]);
    return exchange.wait(this.#count(exchange, texts)).then((counts) => {
      if (counts === undefined) return;
      let newTokens = 0;
      let knownTokens = 0;
      for (const [index, { segment }] of found.entries()) {
        const saved = counts[2 * index]! - counts[2 * index + 1]!;
        if (segment.message >= turn.fresh) newTokens += saved;
        else knownTokens += saved;
      }
      this.#note(exchange, newTokens, knownTokens);
    });
  };

  /** Whether a session ever had rules that concern other texts than today's. */
  #hadMore(epochs: string | undefined): boolean {
    if (epochs === undefined) return false;
    return (
      parseEpochs(epochs)?.some(
        ({ rules }) => !isJsonOnly(rules) || (rules.json && !this.#parts.rules.json),
      ) ?? false
    );
  }

  #begin(exchange: Exchange, body: Buffer): Promise<void> | undefined {
    const touch = mayTouch(this.#parts.guard, exchange, "rules");
    if (touch === "none") return undefined;
    const found = this.#parts.book.find(epochsKey(exchange));
    if (found instanceof Promise)
      return exchange.wait(found).then((text) => this.#rewrite(exchange, body, touch, text));
    return this.#rewrite(exchange, body, touch, found);
  }

  #rewrite(
    exchange: Exchange,
    body: Buffer,
    touch: Touch,
    found: string | undefined,
  ): Promise<void> | undefined {
    const { rules, book } = this.#parts;
    const { spans } = exchange;
    if (spans.length === 0) {
      this.#parts.counts.count("unreadable");
      return undefined;
    }
    const fresh = freshFrom(spans);
    const known = found === undefined ? undefined : parseEpochs(found);
    // What a session that may not be touched any more brings anew is left alone for good.
    const { epochs, isNew } = epochsFor(known, touch === "new" ? rules : NO_RULES, fresh);
    const concerned = concernedBy(spans, epochs, body);
    if (concerned.length === 0) return undefined;
    if (isNew) book.set(epochsKey(exchange), epochsText(epochs));
    const turn: Turn = { exchange, epochs, fresh, ...this.#context(exchange, epochs) };
    if (epochs.some((epoch) => epoch.rules.toolOutput)) exchange.set(Referring, turn);
    return this.#apply(
      turn,
      concerned.map((span) => exchange.segmentOf(span)),
    );
  }

  #context(exchange: Exchange, epochs: readonly Epoch[]): Pick<Turn, "system" | "context"> {
    if (!epochs.some((epoch) => epoch.rules.instructions)) return { system: NOTHING, context: "" };
    const system = exchange.segments.filter(({ kind }) => kind === "system");
    return {
      system: paragraphsOf(system.map(({ text }) => text)),
      context: crypto.hash("sha256", system.map(({ hash }) => hash).join(" "), "base64url").slice(0, 12),
    };
  }

  #apply(turn: Turn, segments: readonly Segment[]): Promise<void> | undefined {
    const { exchange, epochs } = turn;
    const { book, tokenizer } = this.#parts;
    const done: [Segment, Known][] = [];
    const asked: Promise<unknown>[] = [];
    const unknown: Segment[] = [];
    for (const segment of segments) {
      const rules = rulesAt(epochs, segment.message);
      const key = this.#keyOf(turn, segment, rules);
      const known = this.#parts.memo.get(key);
      if (known !== undefined) {
        if (known.text !== undefined) done.push([segment, known]);
        continue;
      }
      const found = book.find(key);
      if (found instanceof Promise) asked.push(found);
      unknown.push(segment);
    }
    if (unknown.length === 0) return this.#finish(turn, done);
    const decide = (): Promise<void> | undefined => {
      const fresh: Fresh[] = [];
      for (const segment of unknown) {
        const rules = rulesAt(epochs, segment.message);
        const key = this.#keyOf(turn, segment, rules);
        const decision = book.get(key);
        const text = segment.text;
        // A literal with a bad escape is left to whoever understands it.
        const isLeft = decision === LEFT_ALONE || textOf(segment.node) === undefined;
        const to = isLeft ? text : rewrite(segment, text, rules, turn.system);
        if (to === text) this.#parts.memo.set(key, UNCHANGED);
        else if (decision !== undefined) {
          const known = { text: to, saved: Number(decision) || 0 };
          this.#parts.memo.set(key, known);
          done.push([segment, known]);
        } else if (tokenizer === undefined) this.#leaveAlone(key, "uncounted");
        else fresh.push({ segment, key, from: text, to });
      }
      if (fresh.length === 0) return this.#finish(turn, done);
      const texts = fresh.flatMap(({ segment, from, to }) => [
        { text: from, ...(!exchange.edited && { hash: segment.hash }) },
        { text: to },
      ]);
      return exchange.wait(this.#count(exchange, texts)).then((counts) => {
        for (const [index, { segment, key, to }] of fresh.entries()) {
          const saved = counts === undefined ? 0 : counts[2 * index]! - counts[2 * index + 1]!;
          // Another request may have been faster; what it decided stands.
          if (saved <= 0 || book.get(key) === LEFT_ALONE)
            this.#leaveAlone(key, counts === undefined ? "uncounted" : "no-shorter");
          else {
            const known = { text: to, saved };
            this.#parts.memo.set(key, known);
            book.set(key, String(saved));
            done.push([segment, known]);
            this.#parts.counts.count("shorter");
          }
        }
        this.#finish(turn, done);
      });
    };
    return asked.length === 0 ? decide() : exchange.wait(Promise.all(asked)).then(decide);
  }

  #finish({ exchange, fresh }: Turn, done: readonly (readonly [Segment, Known])[]): undefined {
    let newTokens = 0;
    let knownTokens = 0;
    for (const [segment, { text, saved }] of done) {
      exchange.edit(segment, text!);
      if (segment.message >= fresh || fresh === 0) newTokens += saved;
      else knownTokens += saved;
    }
    if (done.length > 0) this.#note(exchange, newTokens, knownTokens);
  }

  #note(exchange: Exchange, newTokens: number, knownTokens: number): void {
    if (this.#parts.guard !== undefined) addRewrite(exchange, { plugin: "rules", newTokens, knownTokens });
    else {
      const tokens = newTokens + knownTokens;
      addSaving(exchange, { kind: "compression", plugin: "rules", tokens, nanoUsd: undefined });
    }
  }

  #leaveAlone(key: string, why: RuleOutcome): void {
    this.#parts.counts.count(why);
    this.#parts.memo.set(key, UNCHANGED);
    this.#parts.book.set(key, LEFT_ALONE);
  }

  /** By the bytes of the client's, unless an earlier plugin changed the text: then by that. */
  #keyOf({ exchange, context }: Turn, segment: Segment, rules: Ruleset): string {
    const { kind, tool = "" } = segment;
    // What a result is of decides what is done to it.
    const place = kind === "tool-result" ? `r ${tool}` : kind === "system" ? "s" : "t";
    let { hash } = segment;
    if (exchange.edited) {
      const { text } = segment;
      if (text !== textOf(segment.node)) hash = `e${crypto.hash("sha256", text, "base64url")}`;
    }
    return `${hash} ${rules.id} ${place}${rules.instructions ? ` ${context}` : ""}`;
  }

  /** Undefined where nobody counts in time. */
  async #count(
    exchange: Exchange,
    texts: readonly { readonly text: string; readonly hash?: string }[],
  ): Promise<readonly number[] | undefined> {
    const late = Promise.withResolvers<undefined>();
    const timer = setTimeout(late.resolve, COUNT_MS, undefined);
    try {
      const counting = this.#parts.tokenizer!.count(exchange.description?.model ?? "", texts);
      return await Promise.race([counting, late.promise]);
    } catch (cause) {
      this.#parts.log.warn({ err: cause }, "texts could not be counted, and stay as they are");
      return undefined;
    } finally {
      clearTimeout(timer);
    }
  }
}

const NOTHING: ReadonlySet<string> = new Set();

/** In a longer body there is always some string that begins so: its segments tell, which are known from the turn before. */
const SHORT_BYTES = 8_192;

/** Whether a string may begin as JSON does: of a short body, told without reading it. */
function mayHaveJson(body: Buffer, { json }: Ruleset): boolean {
  return json && (body.length > SHORT_BYTES || body.includes('"{') || body.includes('"['));
}

/** A client chooses its session's id. */
const MAX_SESSION = 200;

function epochsKey({ project, session }: Exchange): string {
  return `session ${project} ${session.slice(0, MAX_SESSION)}`;
}

/** Behind the last answer; 0 where there is none. */
function freshFrom(spans: readonly SegmentSpan[]): number {
  // They come in the order of the messages.
  return (spans.findLast(({ role }) => role === "assistant")?.message ?? -1) + 1;
}

/** The spans of the few segments that rules can concern. */
function concernedBy(spans: readonly SegmentSpan[], epochs: readonly Epoch[], body: Buffer): SegmentSpan[] {
  const found: SegmentSpan[] = [];
  for (const span of spans) if (isConcerned(span, rulesAt(epochs, span.message), body)) found.push(span);
  return found;
}

import {
  type Cut,
  type Exchange,
  type HostInfo,
  type InnerExchange,
  type Logger,
  measuredCut,
  type Pricing,
  priceFormat,
  type Tokenizer,
  type Turns,
} from "@tokenman/plugin-sdk";
import { bodyFor, headersFor, summaryOf } from "./call.ts";
import type { SummaryCounts } from "./counts.ts";
import type { Draft, Drafts } from "./drafts.ts";
import type { SummarizeConfig } from "./schema.ts";
import { transcriptOf } from "./transcript.ts";

/** The plugin's name, by which its own exchanges are known. */
export const NAME = "summarize";
/** What stands before a summary. */
export const INTRODUCTION =
  "[Older messages of this conversation were left out here. In short, this is what was in them:]";

const CALL_MS = 180_000;

/** What is to be summarised: all up to message `at`. */
export interface Wanted {
  readonly turns: Turns;
  readonly at: number;
  /** The summary until now, with which the new one begins. */
  readonly standing: Cut | undefined;
}

export interface MakerParts {
  readonly config: SummarizeConfig;
  readonly host: Pick<HostInfo, "exchange">;
  readonly drafts: Drafts;
  readonly counts: SummaryCounts;
  readonly tokenizer: Tokenizer | undefined;
  readonly pricing: Pricing | undefined;
  readonly log: Logger;
  readonly now: () => number;
}

/** Makes summaries, beside everything else: each by an exchange of its own, as if the client had asked for it. */
export class Maker {
  readonly #parts: MakerParts;

  constructor(parts: MakerParts) {
    this.#parts = parts;
  }

  /** Leaves a draft of the conversation `key`, or nothing. Never rejects. */
  async make(exchange: Exchange, key: string, wanted: Wanted): Promise<void> {
    const { drafts, counts, log, now } = this.#parts;
    const { project, session } = exchange;
    drafts.begins(key);
    try {
      const draft = await this.#draft(exchange, key, wanted);
      if (typeof draft === "object") {
        counts.count("made");
        drafts.made(key, draft);
        const facts = { tokens: draft.cut.tokens, summaryTokens: draft.tokens };
        log.debug({ project, session, ...facts }, "a conversation was summarised");
        return;
      }
      counts.count(draft === LONGER ? "longer" : "failed");
      log.warn({ project, session }, `a conversation was not summarised, and goes on whole: ${draft}`);
    } catch (cause) {
      counts.count("failed");
      log.warn({ err: cause, project, session }, "a conversation was not summarised, and goes on whole");
    }
    drafts.failed(key, now());
  }

  /** One of its exchanges has ended: what it cost counts against what the summary saves. */
  ended(exchange: Exchange): void {
    this.#parts.drafts.cost(exchange.id, this.#costOf(exchange));
  }

  /** Or why there is none. */
  async #draft(exchange: Exchange, key: string, { turns, at, standing }: Wanted): Promise<Draft | string> {
    const { config, tokenizer } = this.#parts;
    const { segments, description } = exchange;
    const own = description?.model ?? "";
    if (tokenizer === undefined) return "nobody counts tokens";
    const before = standing?.text.slice(INTRODUCTION.length).trim();
    const transcript = transcriptOf(segments, standing?.at ?? turns.opening, at, before);
    const asked = { model: config.summary_model || own, maxTokens: config.summary_max_tokens, transcript };
    const body = bodyFor(exchange, asked);
    if (body === undefined) return "the format is not known";
    const counting = measuredCut(exchange, turns, at, INTRODUCTION, tokenizer);
    const summary = await this.#ask(exchange, key, body);
    if ("problem" in summary) return summary.problem;
    const cut = await counting;
    const [tokens = 0] = await tokenizer.count(own, [{ text: summary.text }]);
    if (cut === undefined || tokens >= cut.tokens) return LONGER;
    const text = `${INTRODUCTION}\n\n${summary.text}`;
    return { tokens, cut: { ...cut, text, tokens: cut.tokens - tokens, isKept: config.keep_summaries } };
  }

  async #ask(exchange: Exchange, key: string, body: Buffer): ReturnType<typeof summaryOf> {
    const { drafts, host } = this.#parts;
    const { project, session, request } = exchange;
    const headers = headersFor(exchange);
    const call: InnerExchange = host.exchange({
      plugin: NAME,
      path: request.path,
      headers,
      body,
      project,
      session,
    });
    drafts.asked(key, call);
    const timer = setTimeout(() => call.abort(), CALL_MS);
    try {
      return await summaryOf(await call.reply);
    } finally {
      clearTimeout(timer);
    }
  }

  #costOf(exchange: Exchange): number {
    const { pricing } = this.#parts;
    let total = 0;
    for (const { usage, provider, candidate, startedAt } of exchange.attempts) {
      if (usage === undefined) continue;
      const model = candidate.model ?? exchange.description?.model ?? "";
      const query = {
        model,
        provider: provider.name,
        format: priceFormat(exchange, provider),
        at: startedAt,
      };
      const price = pricing?.price(query, usage);
      if (price?.priced === true) total += price.cost.total;
    }
    return total;
  }
}

const LONGER = "the summary is no shorter";

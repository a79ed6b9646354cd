import crypto from "node:crypto";
import type { Exchange, Segment, TokenEstimate, Tokenizer } from "@tokenman/plugin-sdk";
import { attachmentTokens } from "./attachment.ts";
import type { Corrections } from "./correction.ts";
import { type Countable, type Counter, countableText, MAX_TOOL } from "./counter.ts";
import { type Cut, SAMPLED_ABOVE, sample } from "./cut.ts";
import { type Encoding, encodingOf } from "./encoding.ts";
import { framing } from "./framing.ts";
import { type ImageRule, imageRuleOf } from "./image-tokens.ts";

/** What was estimated for an exchange: the ground for learning from its bill. */
export interface Estimated {
  readonly encoding: Encoding;
  readonly uncorrected: number;
  /** A later change of the body makes the bill say nothing about the estimate. */
  readonly edited: boolean;
}

/** Base64 characters of encrypted reasoning for each token that it stands for: a guess. */
const ENCRYPTED_PER_TOKEN = 6;
/** Bytes a token of a body that was not understood: a guess. */
const OPAQUE_BYTES_PER_TOKEN = 4;

/** The service. */
export class TokenCounter implements Tokenizer {
  readonly #counter: Counter;
  readonly #corrections: Corrections;
  readonly #note: (exchange: Exchange, estimated: Estimated) => void;

  constructor(
    counter: Counter,
    corrections: Corrections,
    note: (exchange: Exchange, estimated: Estimated) => void,
  ) {
    this.#counter = counter;
    this.#corrections = corrections;
    this.#note = note;
  }

  async estimate(
    exchange: Exchange,
    model = exchange.description?.model ?? "",
    uncountedBytes = 0,
  ): Promise<TokenEstimate> {
    const encoding = encodingOf(model);
    const { edited } = exchange;
    const { uncorrected, isCounted } = await this.#uncorrected(exchange, model, encoding, uncountedBytes);
    // A guess teaches nothing of the encoding.
    if (isCounted) this.#note(exchange, { encoding, uncorrected, edited });
    return {
      uncorrected,
      tokens: Math.round(uncorrected * this.#corrections.ratio(model)),
      error: this.#corrections.error(model),
    };
  }

  async count(
    model: string,
    texts: readonly { readonly text: string; readonly hash?: string }[],
  ): Promise<readonly number[]> {
    return this.#counter.count(
      encodingOf(model),
      texts.map(({ text, hash }) => countableText(text, hash)),
    );
  }

  learn(model: string, uncorrected: number, billed: number): void {
    this.#corrections.learn(model, uncorrected, billed);
  }

  async #uncorrected(
    exchange: Exchange,
    model: string,
    encoding: Encoding,
    uncountedBytes: number,
  ): Promise<{ readonly uncorrected: number; readonly isCounted: boolean }> {
    const { segments } = exchange;
    if (segments.length === 0) {
      const bytes = exchange.request.body?.length ?? 0;
      return { uncorrected: Math.ceil(bytes / OPAQUE_BYTES_PER_TOKEN), isCounted: true };
    }
    const rule = imageRuleOf(model);
    let fixed = framing(exchange);
    const countables: Countable[] = [];
    for (const segment of segments) {
      if (segment.kind === "attachment" && segment.node.kind === "object") {
        fixed += attachmentOf(exchange, segment, rule, this.#corrections.ratio(model));
      } else if (isSecret(segment)) {
        fixed += Math.ceil(segment.byteLength / ENCRYPTED_PER_TOKEN);
      } else if (!segment.pointer.endsWith("/signature"))
        countables.push(countableSegment(exchange, segment));
    }
    const guessed =
      uncountedBytes > 0 ? this.#counter.guess(encoding, countables, uncountedBytes) : undefined;
    const counts = guessed ?? (await this.#counter.count(encoding, countables));
    const uncorrected = counts.reduce((sum, count) => sum + count, fixed);
    return { uncorrected, isCounted: guessed === undefined };
  }
}

/** Vendors' rules give tokens of their own, which no correction of text changes: it is taken out again. */
function attachmentOf(exchange: Exchange, segment: Segment, rule: ImageRule, ratio: number): number {
  return Math.round(attachmentTokens(exchange, segment, rule) / ratio);
}

/** Reasoning that came encrypted. A signature beside readable thinking is not read as text. */
function isSecret({ sealed, kind, pointer }: Segment): boolean {
  return sealed && kind === "thinking" && /\/(?:encrypted_content|data)$/.test(pointer);
}

function countableSegment(exchange: Exchange, segment: Segment): Countable {
  const isTool = segment.kind === "tool-definition" && exchange.dialect?.format === "openai";
  // The segment's own hash is of the bytes that the client sent. What plugins made of them is hashed here.
  if (exchange.edited) {
    const { text } = segment;
    return countableText(text, crypto.hash("sha1", text, "base64url"), isTool ? "tool" : "text");
  }
  return new SegmentText(exchange, segment, isTool);
}

/** A segment as the client sent it: its text is not read where its count is remembered. */
class SegmentText implements Countable {
  readonly #exchange: Exchange;
  readonly #segment: Segment;
  readonly length: number;
  readonly form: Countable["form"];

  constructor(exchange: Exchange, segment: Segment, isTool: boolean) {
    this.#exchange = exchange;
    this.#segment = segment;
    this.length = segment.byteLength;
    this.form = isTool && this.length <= MAX_TOOL ? "tool" : "text";
  }

  get key(): string {
    return this.#segment.hash;
  }

  cut(): Cut {
    const { body } = this.#exchange.request;
    const { start } = this.#segment.node;
    // Too long to be decoded for the sake of a few samples.
    if (body !== undefined && this.length > 4 * SAMPLED_ABOVE)
      return sample(this.length, (from, to) => plain(body.toString("utf8", start + from, start + to)));
    return countableText(this.#segment.text, undefined, this.form).cut();
  }
}

const ESCAPES: Readonly<Record<string, string>> = {
  n: "\n",
  t: "\t",
  r: "\r",
  '"': '"',
  "\\": "\\",
  "/": "/",
};

/** JSON text without its commonest escapes. */
function plain(json: string): string {
  return json.replace(/\\([ntr"\\/])/g, (_, escaped: string) => ESCAPES[escaped]!);
}

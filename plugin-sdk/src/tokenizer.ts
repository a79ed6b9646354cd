import type { Exchange } from "./exchange.ts";
import { type ServiceToken, service } from "./service.ts";

/** An estimate of a request's input, before the provider counted it. */
export interface TokenEstimate {
  /** Tokens, with the correction learned for the model. */
  readonly tokens: number;
  /** Tokens as the encoding alone counts them. */
  readonly uncorrected: number;
  /** Mean relative error of past estimates for this model, 0.05 being 5 %; undefined before the first is known. */
  readonly error: number | undefined;
}

/**
 * Counts tokens locally. Estimates serve reservations and savings only: a bill comes from the provider's `usage`. Counting
 * runs in worker threads and is remembered by segment, so a turn costs its new segments.
 */
export interface Tokenizer {
  /**
   * Whole input: segments, tool definitions, images and framing. `model` is the one it will be sent to, where that is
   * not the one the client asked for. Up to `uncountedBytes` (default 0) of what is not remembered yet may be guessed from
   * its length, which costs next to nothing. Never rejects.
   */
  estimate(exchange: Exchange, model?: string, uncountedBytes?: number): Promise<TokenEstimate>;
  /** Tokens of pieces of text, in order. `hash` (of a segment) makes the count memorable. */
  count(
    model: string,
    texts: readonly { readonly text: string; readonly hash?: string }[],
  ): Promise<readonly number[]>;
  /** Teaches what the provider billed for an input that was estimated. */
  learn(model: string, uncorrected: number, billed: number): void;
}
export const Tokenizer: ServiceToken<Tokenizer> = service<Tokenizer>("Tokenizer");

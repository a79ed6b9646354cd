import type { Exchange, UpstreamRequest } from "@tokenman/plugin-sdk";
import type { Answer } from "./answer.ts";
import type { Behaviour } from "./behaviour.ts";
import type { Json } from "./json.ts";
import type { Prompt } from "./prompt.ts";
import type { CachePlan } from "./prompt-cache.ts";

/** All that a dialect's reply is made from. */
export interface ReplyFacts {
  /** As the client sent it. */
  readonly body: Buffer;
  readonly json: Json;
  readonly prompt: Prompt;
  readonly behaviour: Behaviour;
  readonly answer: Answer;
  readonly outputTokens: number;
  readonly cache: CachePlan;
  /** Milliseconds since the epoch. */
  readonly now: number;
  /** Whether usage names what a prompt newly cached (OpenAI only). */
  readonly reportsWrites: boolean;
}

/** How one dialect words an answer. */
export interface Wording {
  /** A buffered reply. */
  whole(facts: ReplyFacts): Json;
  /** The events of a streamed one. */
  events(facts: ReplyFacts): readonly Buffer[];
}

/** What a replay decides about one reply in the place of the rules. */
export interface Direction {
  /** Figures of the usage; what is left out follows the rules. */
  readonly usage?: Partial<
    Pick<CachePlan, "inputTokens" | "readTokens" | "write5mTokens" | "write1hTokens"> & {
      readonly outputTokens: number;
    }
  >;
  /** Of a stream: so many events (0: a comment), and then nothing, until the client leaves. */
  readonly hangsAfter?: number;
}

/** Asked at each request; undefined: the rules decide all. */
export type Directions = (request: UpstreamRequest, exchange: Exchange) => Direction | undefined;

/** What the load generator is asked to do, and what it answers; both cross a process boundary as JSON. */
import type { BenchDialect, ReplySpec } from "./replies.ts";

interface Job {
  port: number;
  /** Header lines beside the dialect's own. */
  headers: readonly (readonly [name: string, value: string])[];
  dialect: BenchDialect;
  reply: ReplySpec;
  /**
   * `bytes`: the reply must be the upstream's bytes. `content`: status 200, and the text and the usage are all there;
   * for a gateway that writes replies anew.
   */
  verify: "bytes" | "content";
}

/** A closed loop: each of `concurrency` connections sends its next request when the reply before is complete. */
export interface LoopJob extends Job {
  kind: "loop";
  bodyBytes: number;
  concurrency: number;
  /** No request starts later than this. */
  maxMs: number;
  /** No more requests than this are sent in all. */
  maxRequests: number;
  /** Every request is the same one, and so what a cache answers. Default: no two are. */
  repeats?: boolean;
  /** The connections start spread evenly over this time. Default 0. */
  rampMs?: number;
}

/** Requests `from` to `to` (excluded) of a recorded session, one after another on one connection. */
export interface SessionJob extends Job {
  kind: "session";
  file: string;
  from: number;
  to: number;
}

export type LoadJob = LoopJob | SessionJob;

export interface LoadResult {
  /** Complete and right replies. */
  completed: number;
  failed: number;
  /** The first few reasons of failures. */
  reasons: string[];
  elapsedMs: number;
  /** Request bodies' bytes sent in all. */
  sentBytes: number;
  /** From the first byte sent to the last byte received, in microseconds. */
  latency: Percentiles;
  /** From the first byte sent to the first byte of the reply's body, in microseconds. */
  firstByte: Percentiles;
}

export interface Percentiles {
  p50: number;
  p99: number;
  max: number;
  mean: number;
}

import type { Encoding } from "./encoding.ts";

/** A piece to count: text as it stands, or a tool's definition as OpenAI's models see it. */
export interface Piece {
  readonly form: "text" | "tool";
  readonly text: string;
}

/** To the worker. */
export interface Job {
  readonly id: number;
  readonly encoding: Encoding;
  readonly pieces: readonly Piece[];
}

/** From it: tokens, piece by piece. */
export interface JobResult {
  readonly id: number;
  readonly counts: readonly number[];
}

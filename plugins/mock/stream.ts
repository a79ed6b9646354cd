import { encodeSse, TokenmanError } from "@tokenman/plugin-sdk";
import type { Behaviour } from "./behaviour.ts";

/** Resolves after `ms`; rejects at once when the signal fires. */
export type Sleep = (ms: number, signal: AbortSignal) => Promise<unknown>;

/** An event with JSON data; its line `event:` is left out where `name` is undefined. */
export function sse(name: string | undefined, data: unknown): Buffer {
  const text = typeof data === "string" ? data : JSON.stringify(data);
  return encodeSse(name === undefined ? { data: text } : { event: name, data: text });
}

/**
 * The body of a reply: its pieces at the behaviour's pace and chunk size, broken off in the middle where it says so. Ends
 * at once, without the rest, when the signal fires.
 */
export async function* paced(
  pieces: readonly Buffer[],
  behaviour: Behaviour,
  signal: AbortSignal,
  sleep: Sleep,
): AsyncGenerator<Buffer, void, undefined> {
  const last = behaviour.failsMidstream ? Math.max(1, pieces.length >> 1) : pieces.length;
  for (const [index, piece] of pieces.entries()) {
    if (index === last) break;
    if (index > 0 && behaviour.eventDelayMs > 0) {
      try {
        await sleep(behaviour.eventDelayMs, signal);
      } catch {
        return;
      }
    }
    const size = behaviour.chunkBytes > 0 ? behaviour.chunkBytes : piece.length;
    for (let at = 0; at < piece.length; at += size) {
      if (signal.aborted) return;
      yield piece.subarray(at, at + size);
    }
  }
  if (behaviour.failsMidstream)
    throw new TokenmanError("TM_UPSTREAM_CUT", "the embedded provider broke off, as its model's name says");
}

/** A buffered reply in two halves, so that it can break between them. */
export function halves(body: Buffer): readonly Buffer[] {
  const middle = body.length >> 1;
  return [body.subarray(0, middle), body.subarray(middle)];
}

/** The pieces, and then nothing: it goes on until the signal fires. */
export async function* hanging(
  pieces: readonly Buffer[],
  signal: AbortSignal,
): AsyncGenerator<Buffer, void, undefined> {
  yield* pieces;
  if (signal.aborted) return;
  await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

import crypto from "node:crypto";
import { type Dialect, type Exchange, nodeAt, type Segment, type Slot } from "@tokenman/plugin-sdk";

/** An exchange as far as its description goes: body, segments, slots. `edited` texts are by segment pointer. */
export function describedExchange(
  dialect: Dialect,
  body: unknown,
  { edited = {} }: { readonly edited?: Readonly<Record<string, string>> } = {},
): Exchange {
  const bytes = Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body));
  const segments = dialect.segments(bytes).map((span): Segment => {
    let text: string | undefined;
    let hash: string | undefined;
    const node = nodeAt(bytes, span.start, span.end);
    return {
      ...span,
      node,
      byteLength: span.end - span.start,
      get text() {
        text ??= edited[span.pointer] ?? (node.kind === "string" ? node.text() : node.raw());
        return text;
      },
      get hash() {
        hash ??= crypto.hash("sha256", bytes.subarray(span.start, span.end), "base64url");
        return hash;
      },
    };
  });
  const notes = new Map<symbol, unknown>();
  const exchange: Partial<Exchange> = {
    dialect,
    request: { body: bytes } as Exchange["request"],
    description: dialect.describe(bytes),
    segments,
    edited: Object.keys(edited).length > 0,
    set: <T>(slot: Slot<T>, value: T) => void notes.set(slot.key, value),
    get: <T>(slot: Slot<T>) => notes.get(slot.key) as T | undefined,
  };
  return exchange as Exchange;
}

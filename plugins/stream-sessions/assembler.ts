import { type JsonNode, parseIndex, type SseEvent } from "@tokenman/plugin-sdk";

/** Puts a streamed reply together, as it is to stand in the conversation. One a reply. */
export interface Assembler {
  /** Takes an event of the stream in. Throws {@link UnkeepableError} where it cannot. */
  event(event: SseEvent): void;
  /** The messages or items that the reply adds to the conversation, as JSON. Throws {@link UnkeepableError}. */
  finish(): readonly string[];
}

/** A reply that cannot be put together faithfully: it must not go into a conversation. */
export class UnkeepableError extends Error {}

/** An event's data as JSON whose raw text can be read; undefined where it is none, as with `[DONE]`. */
export function dataOf(event: SseEvent): JsonNode | undefined {
  if (event.oversize) throw new UnkeepableError("an event of the reply is too long to be kept");
  if (!event.data.startsWith("{")) return undefined;
  try {
    return parseIndex(Buffer.from(event.data));
  } catch {
    throw new UnkeepableError("an event of the reply is not JSON");
  }
}

/**
 * A string that comes in pieces, kept as the pieces of its JSON literal: escapes stay as they were spelled, and a
 * surrogate pair may be split between two pieces.
 */
export class Literal {
  #inside = "";

  add(piece: JsonNode | undefined): void {
    if (piece?.kind === "string") this.#inside += piece.raw().slice(1, -1);
  }
  get empty(): boolean {
    return this.#inside === "";
  }
  get json(): string {
    return `"${this.#inside}"`;
  }
}

/** The object with some members replaced; those that it has not are added. All others stay as they are spelled. */
export function withMembers(object: JsonNode, values: ReadonlyMap<string, string>): string {
  const left = new Map(values);
  const members = object.entries().map((member) => {
    const value = left.get(member.key);
    left.delete(member.key);
    return `${JSON.stringify(member.key)}:${value ?? member.value.raw()}`;
  });
  for (const [key, value] of left) members.push(`${JSON.stringify(key)}:${value}`);
  return `{${members.join(",")}}`;
}

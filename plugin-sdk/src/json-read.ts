/** Lenient reading of JSON that somebody else wrote: what is not as expected is undefined, and nothing throws. */
import { type JsonNode, topLevel } from "./json-index.ts";
import type { DocumentMemo } from "./json-memo.ts";

const SPACES: ReadonlySet<number | undefined> = new Set([0x20, 0x09, 0x0a, 0x0d]);

/** The wanted top-level members of a body, or undefined where it is not a JSON object. Never throws. `memo`: see `topLevel`. */
export function topLevelOf(
  body: Buffer,
  wanted: ReadonlySet<string>,
  memo?: DocumentMemo,
): Map<string, JsonNode> | undefined {
  let at = body[0] === 0xef && body[1] === 0xbb && body[2] === 0xbf ? 3 : 0;
  while (SPACES.has(body[at])) at++;
  if (body[at] !== 0x7b) return undefined;
  try {
    return topLevel(body, wanted, memo);
  } catch {
    return undefined;
  }
}

/** A string node's text; undefined for any other kind, and for a literal that does not decode. */
export function textOf(node: JsonNode | undefined): string | undefined {
  if (node?.kind !== "string") return undefined;
  try {
    return node.text();
  } catch {
    return undefined;
  }
}

/** A node's value as JSON.parse gives it; undefined where it does not parse. */
export function parsedOf(node: JsonNode | undefined): unknown {
  try {
    return node?.value();
  } catch {
    return undefined;
  }
}

/** A count as the API gives them; undefined for null, negative, infinite and other values. */
export function countOf(value: unknown): number | undefined {
  return typeof value === "number" && value >= 0 && Number.isFinite(value) ? value : undefined;
}

/** The value where it is an object (arrays included), for reading members of unknown JSON. */
export function recordOf(value: unknown): Readonly<Record<string, unknown>> | undefined {
  return typeof value === "object" && value !== null
    ? (value as Readonly<Record<string, unknown>>)
    : undefined;
}

/** The value where it is a string. */
export function stringOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

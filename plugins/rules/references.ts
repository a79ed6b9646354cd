import { type Exchange, type JsonPatch, type Segment, textOf } from "@tokenman/plugin-sdk";
import { type Epoch, rulesAt } from "./epochs.ts";
import { isFileTool, looksLikeFile } from "./looks.ts";
import { withoutAnsi } from "./terminal.ts";

/** A shorter result, or run of data, is not worth a reference. */
const MIN_RESULT = 400;
const BASE64 = /(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{512,}={0,2}/g;

/** A result that is to be sent as a reference to an earlier one, in whole or in part. */
export interface Reference {
  readonly segment: Segment;
  readonly text: string;
}

/**
 * What may be referred to from later results: the results themselves, by hash, and the runs of base64 in them. What a text
 * holds is found out once, and remembered by its hash.
 */
export class References {
  /** Whether a result may be replaced, and its runs of base64; undefined where nothing of it matters. */
  readonly #known = new Map<string, { readonly isReplaceable: boolean; readonly blobs: readonly string[] }>();

  /**
   * The results that are in the request already: those that stand, earlier ones first. It depends on nothing but what
   * comes before, so that each turn refers as the one before did, unless a cut took away what it referred to.
   */
  find(exchange: Exchange, epochs: readonly Epoch[]): readonly Reference[] {
    const found: Reference[] = [];
    const results = new Map<string, Segment>();
    const blobs = new Map<string, Segment>();
    for (const segment of exchange.segments) {
      if (segment.kind !== "tool-result" || segment.sealed || segment.node.kind !== "string") continue;
      if (segment.byteLength < MIN_RESULT) continue;
      if (!exchange.stands(segment.pointer)) continue;
      const first = results.get(segment.hash);
      const { isReplaceable, blobs: own } = this.#of(segment);
      const mayReplace = rulesAt(epochs, segment.message).toolOutput && isReplaceable;
      if (first === undefined) results.set(segment.hash, segment);
      else if (mayReplace) {
        found.push({ segment, text: `[The same output as before${callOf(exchange, first)}]` });
        continue;
      }
      let text: string | undefined;
      for (const blob of own) {
        const holder = blobs.get(blob);
        if (holder === undefined) blobs.set(blob, segment);
        else if (mayReplace && holder !== segment)
          text = (text ?? segment.text).replaceAll(
            blob,
            `[the same base64 data as before${callOf(exchange, holder)}]`,
          );
      }
      if (text !== undefined) found.push({ segment, text });
    }
    return found;
  }

  #of(segment: Segment): { readonly isReplaceable: boolean; readonly blobs: readonly string[] } {
    // The tool decides, too, and the same text may come from another.
    const key = `${segment.hash} ${segment.tool ?? ""}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const { text } = segment;
    const made = {
      isReplaceable: !isFileTool(segment.tool) && !looksLikeFile(withoutAnsi(text)),
      blobs: text.length > 1_048_576 ? [] : [...new Set(text.match(BASE64))],
    };
    if (this.#known.size > 20_000) this.#known.clear();
    // Long data is not kept twice: what has any is looked through again.
    if (made.blobs.length === 0) this.#known.set(key, made);
    return made;
  }
}

export function patchOf({ segment: { pointer }, text }: Reference): JsonPatch {
  return { op: "replace", pointer, value: text };
}

/** Words that name the call whose result a segment is part of. */
function callOf(exchange: Exchange, { pointer }: Segment): string {
  for (let at = pointer; at !== ""; at = at.slice(0, at.lastIndexOf("/"))) {
    const node = exchange.node(at);
    const id = textOf(node?.get("tool_use_id") ?? node?.get("tool_call_id") ?? node?.get("call_id"));
    if (id !== undefined) return `, in the result of ${id}`;
  }
  return "";
}

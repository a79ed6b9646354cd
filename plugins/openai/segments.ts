import { type JsonNode, parseIndex, type SegmentSpan } from "@tokenman/plugin-sdk";
import { readMessages } from "./chat-segments.ts";
import { readInput } from "./responses-segments.ts";
import { SegmentList } from "./segment-list.ts";

/** The text of a Chat Completions body: tools, then messages. A Responses-shaped body is read as such. */
export function chatSegments(body: Buffer): readonly SegmentSpan[] {
  return read(body, (root, list) => {
    readTools(root, list);
    if (root.get("messages") === undefined && root.get("input") !== undefined) readInput(root, list);
    else readMessages(root, list);
  });
}

/** The text of a Responses body: tools, instructions, input. */
export function responsesSegments(body: Buffer): readonly SegmentSpan[] {
  return read(body, (root, list) => {
    readTools(root, list);
    if (root.get("input") === undefined && root.get("messages") !== undefined) readMessages(root, list);
    else readInput(root, list);
  });
}

/** The texts of an Embeddings body. Token arrays are numbers, and listed as they stand. */
export function embeddingSegments(body: Buffer): readonly SegmentSpan[] {
  return read(body, (root, list) => {
    const input = root.get("input");
    const items = input?.items() ?? [];
    if (items.some((item) => item.kind === "string")) {
      for (const [index, item] of items.entries()) {
        list.add(item, `/input/${index}`, item.kind === "string" ? "text" : "other", {
          role: "user",
          message: index,
        });
      }
    } else
      list.add(input, "/input", input?.kind === "string" ? "text" : "other", { role: "user", message: 0 });
  });
}

function readTools(root: JsonNode, list: SegmentList): void {
  for (const key of ["tools", "functions"]) {
    for (const [index, tool] of (root.get(key)?.items() ?? []).entries())
      list.definition(tool, `/${key}/${index}`);
  }
}

function read(body: Buffer, into: (root: JsonNode, list: SegmentList) => void): readonly SegmentSpan[] {
  try {
    const list = new SegmentList();
    into(parseIndex(body), list);
    return list.spans;
  } catch {
    return [];
  }
}

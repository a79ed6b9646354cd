import { type BodyReader, listSegments, type SegmentSpan } from "@tokenman/plugin-sdk";
import { readMessages } from "./chat-segments.ts";
import { definition } from "./content-segments.ts";
import { readInput } from "./responses-segments.ts";

const CHAT = Symbol("openai-chat");
const RESPONSES = Symbol("openai-responses");
const EMBEDDINGS = Symbol("openai-embeddings");

/** The text of a Chat Completions body: tools, then messages. A Responses-shaped body is read as such. */
export function chatSegments(body: Buffer): readonly SegmentSpan[] {
  return listSegments(CHAT, body, (reader) => {
    readTools(reader);
    if (reader.get("messages") === undefined && reader.get("input") !== undefined) readInput(reader);
    else readMessages(reader);
  });
}

/** The text of a Responses body: tools, instructions, input. */
export function responsesSegments(body: Buffer): readonly SegmentSpan[] {
  return listSegments(RESPONSES, body, (reader) => {
    readTools(reader);
    if (reader.get("input") === undefined && reader.get("messages") !== undefined) readMessages(reader);
    else readInput(reader);
  });
}

/** The texts of an Embeddings body. Token arrays are numbers, and listed as they stand. */
export function embeddingSegments(body: Buffer): readonly SegmentSpan[] {
  return listSegments(EMBEDDINGS, body, (reader) => {
    const items = reader.get("input")?.items() ?? [];
    if (items.some((item) => item.kind === "string")) {
      reader.elements("input", (item, message, into) =>
        into.add(item, `/input/${message}`, item.kind === "string" ? "text" : "other", {
          role: "user",
          message,
        }),
      );
    } else {
      reader.value("input", (input, into) =>
        into.add(input, "/input", input.kind === "string" ? "text" : "other", { role: "user", message: 0 }),
      );
    }
  });
}

function readTools(reader: BodyReader): void {
  for (const key of ["tools", "functions"])
    reader.elements(key, (tool, index, into) => definition(tool, `/${key}/${index}`, into));
}

import { recordOf, type SseEvent, stringOf } from "@tokenman/plugin-sdk";
import { isContentBlock } from "./events.ts";

/** What an event of a Messages stream adds: text, thinking and the JSON of tool calls. */
export function outputText(event: SseEvent): string {
  if (event.oversize || !isContentBlock(event)) return "";
  const data = recordOf(event.json());
  const delta = recordOf(data?.["delta"]);
  return (
    stringOf(delta?.["text"]) ??
    stringOf(delta?.["thinking"]) ??
    stringOf(delta?.["partial_json"]) ??
    stringOf(recordOf(data?.["content_block"])?.["name"]) ??
    ""
  );
}

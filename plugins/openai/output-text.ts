import { recordOf, type SseEvent, stringOf } from "@tokenman/plugin-sdk";

/** What a chunk of Chat Completions adds: text, reasoning (as other servers spell it, too), refusals, arguments of calls. */
export function chatText(event: SseEvent): string {
  if (event.oversize || !event.hasData) return "";
  const choices = recordOf(event.json())?.["choices"];
  if (!Array.isArray(choices)) return "";
  return choices
    .map((choice) => {
      const delta = recordOf(recordOf(choice)?.["delta"]);
      const texts = ["content", "reasoning_content", "reasoning", "refusal"].map((name) =>
        stringOf(delta?.[name]),
      );
      const calls = delta?.["tool_calls"];
      const called = (Array.isArray(calls) ? calls : []).flatMap((call) => {
        const made = recordOf(recordOf(call)?.["function"]);
        return [stringOf(made?.["name"]), stringOf(made?.["arguments"])];
      });
      return [...texts, ...called].join("");
    })
    .join("");
}

/** What an event of Responses adds: the `delta` of text, reasoning, refusal and call events. */
export function responsesText(event: SseEvent): string {
  // Each delta event is followed by a `done` that has the whole again, under other names.
  return event.oversize ? "" : (stringOf(recordOf(event.json())?.["delta"]) ?? "");
}

import { encodeSse, type ReplyInit } from "@tokenman/plugin-sdk";

/** How one dialect words an answer that is a single text. */
interface Wording {
  body(text: string): object;
  events(text: string): Buffer[];
}

const MODEL = "parrot";
/** A parrot is free of charge, and counts nothing. */
const USAGE = { input_tokens: 0, output_tokens: 0 };

const message = (content: readonly object[], stop_reason: string | null) => ({
  id: "msg_parrot",
  type: "message",
  role: "assistant",
  model: MODEL,
  content,
  stop_reason,
  stop_sequence: null,
  usage: USAGE,
});

const completion = (object: string, choice: object) => ({
  id: "chatcmpl-parrot",
  object,
  created: 0,
  model: MODEL,
  choices: [{ index: 0, ...choice }],
});

/** By dialect: the two that the parrot speaks. */
const wordings: Readonly<Record<string, Wording>> = {
  "anthropic-messages": {
    body: (text) => message([{ type: "text", text }], "end_turn"),
    events: (text) =>
      [
        { type: "message_start", message: message([], null) },
        { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
        ...words(text).map((word) => ({
          type: "content_block_delta",
          index: 0,
          delta: { type: "text_delta", text: word },
        })),
        { type: "content_block_stop", index: 0 },
        { type: "message_delta", delta: { stop_reason: "end_turn", stop_sequence: null }, usage: USAGE },
        { type: "message_stop" },
      ].map((event) => encodeSse({ event: event.type, data: JSON.stringify(event) })),
  },
  "openai-chat": {
    body: (content) =>
      completion("chat.completion", { message: { role: "assistant", content }, finish_reason: "stop" }),
    events: (text) => [
      ...[
        { delta: { role: "assistant", content: "" }, finish_reason: null },
        ...words(text).map((content) => ({ delta: { content }, finish_reason: null })),
        { delta: {}, finish_reason: "stop" },
      ].map((choice) => encodeSse({ data: JSON.stringify(completion("chat.completion.chunk", choice)) })),
      encodeSse({ data: "[DONE]" }),
    ],
  },
};

/** A reply that says `text`; undefined in a dialect that the parrot does not speak. */
export function answer(dialect: string, text: string, stream: boolean): ReplyInit | undefined {
  const wording = wordings[dialect];
  if (wording === undefined) return undefined;
  if (!stream) {
    const body = JSON.stringify(wording.body(text));
    return { status: 200, headers: ["Content-Type", "application/json"], body };
  }
  return { status: 200, headers: ["Content-Type", "text/event-stream"], body: each(wording.events(text)) };
}

function words(text: string): string[] {
  return text.match(/\S+\s*|\s+/g) ?? [];
}

async function* each(events: readonly Buffer[]): AsyncGenerator<Buffer> {
  yield* events;
}

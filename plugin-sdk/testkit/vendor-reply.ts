import type { ReplyInit } from "../src/reply.ts";
import { encodeSse } from "../src/sse.ts";
import type { Script } from "./script.ts";
import type { RecordedRequest } from "./upstream.ts";

/** Whose shape a reply takes. */
export type VendorDialect = "anthropic-messages" | "openai-chat" | "openai-responses";

/** The dialect that a path speaks; undefined for one that is none of the three. */
export function dialectOf(target: string): VendorDialect | undefined {
  const path = target.split("?", 1)[0]!.replace(/^\/v1/, "");
  if (path === "/messages") return "anthropic-messages";
  if (path === "/chat/completions") return "openai-chat";
  return path === "/responses" ? "openai-responses" : undefined;
}

/** Tokens that {@link textReply} and {@link textEvents} bill, always the same. */
export const BILLED = Object.freeze({ inputTokens: 12, outputTokens: 5 });

/** A reply of the vendor's to a request that does not stream: one text, and a usage of {@link BILLED}. */
export function textReply(dialect: VendorDialect, text = "Hello there."): ReplyInit {
  return json(200, bodies[dialect](text));
}

/** The events of a stream of the vendor's, each as its bytes: the texts as deltas, then usage and the regular end. */
export function textEvents(
  dialect: VendorDialect,
  texts: readonly string[] = ["Hello", " there."],
): Buffer[] {
  return streams[dialect](texts);
}

/** A whole stream as a reply. */
export function streamReply(dialect: VendorDialect, texts?: readonly string[]): ReplyInit {
  return {
    status: 200,
    headers: ["Content-Type", "text/event-stream; charset=utf-8"],
    body: Buffer.concat(textEvents(dialect, texts)),
  };
}

/** An error of the vendor's, worded as it words that status. */
export function errorReply(
  dialect: VendorDialect,
  status: number,
  headers: readonly string[] = [],
): ReplyInit {
  const type = ERROR_TYPES[status] ?? (status < 500 ? "invalid_request_error" : "api_error");
  const message = `the test's ${status}`;
  const body =
    dialect === "anthropic-messages"
      ? { type: "error", error: { type, message }, request_id: "req_test" }
      : { error: { message, type, param: null, code: type } };
  return json(status, body, headers);
}

/** The event by which a vendor reports an error inside a stream of status 200. */
export function errorEvent(dialect: VendorDialect, type = "overloaded_error"): Buffer {
  const message = "the test's error event";
  if (dialect === "anthropic-messages") return event({ type: "error", error: { type, message } }, "error");
  if (dialect === "openai-chat")
    return event({ error: { message, type: "server_error", param: null, code: type } });
  return event({ type: "error", code: type, message, param: null, sequence_number: 1 }, "error");
}

/** Answers in the request's own dialect, as a stream where it asks for one. */
export function textScript(texts?: readonly string[]): Script {
  return async (call) => {
    await call.received;
    await call.reply(replyTo(call.request, texts));
  };
}

/** The reply that {@link textScript} gives. A path of no known dialect gets status 200 and `{}`. */
export function replyTo(request: RecordedRequest, texts?: readonly string[]): ReplyInit {
  const dialect = dialectOf(request.target);
  if (dialect === undefined) return json(200, {});
  return wantsStream(request) ? streamReply(dialect, texts) : textReply(dialect, texts?.join(""));
}

export function wantsStream(request: RecordedRequest): boolean {
  try {
    return (request.json() as { readonly stream?: unknown } | null)?.stream === true;
  } catch {
    return false;
  }
}

const ERROR_TYPES: Readonly<Record<number, string>> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  413: "request_too_large",
  429: "rate_limit_error",
  529: "overloaded_error",
};
const { inputTokens, outputTokens } = BILLED;
const MODEL = "test-model";
const CREATED = 1_750_000_000;

const bodies: Readonly<Record<VendorDialect, (text: string) => object>> = {
  "anthropic-messages": (text) => ({
    ...message([{ type: "text", text }], "end_turn"),
    usage: { input_tokens: inputTokens, output_tokens: outputTokens },
  }),
  "openai-chat": (text) => ({
    id: "chatcmpl-test",
    object: "chat.completion",
    created: CREATED,
    model: MODEL,
    choices: [{ index: 0, message: { role: "assistant", content: text }, finish_reason: "stop" }],
    usage: chatUsage(),
  }),
  "openai-responses": (text) => response("completed", text),
};

const streams: Readonly<Record<VendorDialect, (texts: readonly string[]) => Buffer[]>> = {
  "anthropic-messages": (texts) => [
    event(
      {
        type: "message_start",
        message: { ...message([], null), usage: { input_tokens: inputTokens, output_tokens: 1 } },
      },
      "message_start",
    ),
    event(
      { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
      "content_block_start",
    ),
    ...texts.map((text) =>
      event(
        { type: "content_block_delta", index: 0, delta: { type: "text_delta", text } },
        "content_block_delta",
      ),
    ),
    event({ type: "content_block_stop", index: 0 }, "content_block_stop"),
    event(
      {
        type: "message_delta",
        delta: { stop_reason: "end_turn", stop_sequence: null },
        usage: { output_tokens: outputTokens },
      },
      "message_delta",
    ),
    event({ type: "message_stop" }, "message_stop"),
  ],
  "openai-chat": (texts) => [
    event(chunk({ role: "assistant", content: "" })),
    ...texts.map((content) => event(chunk({ content }))),
    event(chunk({}, "stop")),
    event({ ...chunk({}), choices: [], usage: chatUsage() }),
    encodeSse({ data: "[DONE]" }),
  ],
  "openai-responses": (texts) => {
    const place = { item_id: "msg_test", output_index: 0, content_index: 0 };
    const text = texts.join("");
    const all: readonly { readonly type: string }[] = [
      { type: "response.created", ...{ response: response("in_progress") } },
      { type: "response.output_item.added", ...{ output_index: 0, item: item("in_progress") } },
      { type: "response.content_part.added", ...{ ...place, part: part("") } },
      ...texts.map((delta) => ({ type: "response.output_text.delta", ...place, delta })),
      { type: "response.output_text.done", ...{ ...place, text } },
      { type: "response.content_part.done", ...{ ...place, part: part(text) } },
      { type: "response.output_item.done", ...{ output_index: 0, item: item("completed", text) } },
      { type: "response.completed", ...{ response: response("completed", text) } },
    ];
    return all.map((data, index) => event({ ...data, sequence_number: index }, data.type));
  },
};

function message(content: readonly object[], stopReason: string | null): object {
  return {
    id: "msg_test",
    type: "message",
    role: "assistant",
    model: MODEL,
    content,
    stop_reason: stopReason,
    stop_sequence: null,
  };
}

function chunk(delta: object, finishReason: string | null = null): object {
  return {
    id: "chatcmpl-test",
    object: "chat.completion.chunk",
    created: CREATED,
    model: MODEL,
    choices: [{ index: 0, delta, finish_reason: finishReason }],
  };
}

function chatUsage(): object {
  return {
    prompt_tokens: inputTokens,
    completion_tokens: outputTokens,
    total_tokens: inputTokens + outputTokens,
  };
}

function response(status: string, text?: string): object {
  return {
    id: "resp_test",
    object: "response",
    created_at: CREATED,
    status,
    model: MODEL,
    output: text === undefined ? [] : [item(status, text)],
    usage:
      text === undefined
        ? null
        : {
            input_tokens: inputTokens,
            output_tokens: outputTokens,
            total_tokens: inputTokens + outputTokens,
          },
  };
}

function item(status: string, text?: string): object {
  const content = text === undefined ? [] : [part(text)];
  return { id: "msg_test", type: "message", role: "assistant", status, content };
}

function part(text: string): object {
  return { type: "output_text", text, annotations: [] };
}

function event(data: object, name?: string): Buffer {
  return encodeSse({ ...(name !== undefined && { event: name }), data: JSON.stringify(data) });
}

function json(status: number, body: object, headers: readonly string[] = []): ReplyInit {
  return { status, headers: ["Content-Type", "application/json", ...headers], body: JSON.stringify(body) };
}

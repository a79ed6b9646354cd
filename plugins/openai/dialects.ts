import { type Dialect, headerValue, type UsageReader } from "@tokenman/plugin-sdk";
import { describe } from "./description.ts";
import { judgeError } from "./errors.ts";
import { judgeChatEvent, judgeResponsesEvent } from "./events.ts";
import { chatText, responsesText } from "./output-text.ts";
import { chatSegments, embeddingSegments, responsesSegments } from "./segments.ts";
import { ChatUsage, ResponsesUsage } from "./usage.ts";

/** Replies of paths that bill no tokens: nothing is read out of them. */
const NO_USAGE: UsageReader = Object.freeze({ event() {}, body() {}, usage: () => undefined });

/** `POST /v1/chat/completions`. Some clients post Responses-shaped bodies here: those are read as what they are. */
export const chat: Dialect = Object.freeze({
  name: "openai-chat",
  format: "openai",
  routes: [{ method: "POST", path: "/v1/chat/completions" }],
  generates: true,
  describe,
  segments: chatSegments,
  usageReader: () => new ChatUsage(),
  judgeEvent: judgeChatEvent,
  outputText: chatText,
  judgeError,
} satisfies Dialect);

/** `POST /v1/responses`. Reading, deleting and cancelling stored responses are opaque to TokenMan. */
export const responses: Dialect = Object.freeze({
  name: "openai-responses",
  format: "openai",
  routes: [{ method: "POST", path: "/v1/responses" }],
  generates: true,
  describe,
  segments: responsesSegments,
  usageReader: () => new ResponsesUsage(),
  judgeEvent: judgeResponsesEvent,
  outputText: responsesText,
  judgeError,
} satisfies Dialect);

/** `POST /v1/embeddings`: billed by its input tokens. */
export const embeddings: Dialect = Object.freeze({
  name: "openai-embeddings",
  format: "openai",
  routes: [{ method: "POST", path: "/v1/embeddings" }],
  generates: true,
  describe,
  segments: embeddingSegments,
  usageReader: () => new ChatUsage(),
  judgeEvent: judgeChatEvent,
  judgeError,
} satisfies Dialect);

/** `GET /v1/models[/ID]`, a path that both vendors have: Anthropic's clients send `anthropic-version`. */
export const models: Dialect = Object.freeze({
  name: "openai-models",
  format: "openai",
  routes: [
    { method: "GET", path: "/v1/models" },
    { method: "GET", path: "/v1/models/:model" },
  ],
  accepts: (headers) => headerValue(headers, "anthropic-version") === undefined,
  generates: false,
  listsModels: true,
  describe: () => undefined,
  segments: () => [],
  usageReader: () => NO_USAGE,
  judgeEvent: judgeChatEvent,
  judgeError,
} satisfies Dialect);

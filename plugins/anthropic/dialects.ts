import { type Dialect, headerValue, type UsageReader } from "@tokenman/plugin-sdk";
import { describe } from "./description.ts";
import { judgeError } from "./errors.ts";
import { judgeEvent } from "./events.ts";
import { outputText } from "./output-text.ts";
import { segments } from "./segments.ts";
import { MessageUsage } from "./usage.ts";

/** Replies of paths that bill no tokens: nothing is read out of them. */
const NO_USAGE: UsageReader = Object.freeze({ event() {}, body() {}, usage: () => undefined });

/** `POST /v1/messages`. */
export const messages: Dialect = Object.freeze({
  name: "anthropic-messages",
  format: "anthropic",
  routes: [{ method: "POST", path: "/v1/messages" }],
  generates: true,
  describe,
  segments,
  usageReader: () => new MessageUsage(),
  judgeEvent,
  outputText,
  judgeError,
} satisfies Dialect);

/** `POST /v1/messages/count_tokens`: a request like `/v1/messages`, answered for free with a number. */
export const countTokens: Dialect = Object.freeze({
  name: "anthropic-count-tokens",
  format: "anthropic",
  routes: [{ method: "POST", path: "/v1/messages/count_tokens" }],
  generates: false,
  describe,
  segments,
  usageReader: () => NO_USAGE,
  judgeEvent,
  judgeError,
} satisfies Dialect);

/** `GET /v1/models[/ID]`, a path that both vendors have: only Anthropic's clients send `anthropic-version`. */
export const models: Dialect = Object.freeze({
  name: "anthropic-models",
  format: "anthropic",
  routes: [
    { method: "GET", path: "/v1/models" },
    { method: "GET", path: "/v1/models/:model" },
  ],
  accepts: (headers) => headerValue(headers, "anthropic-version") !== undefined,
  generates: false,
  listsModels: true,
  describe: () => undefined,
  segments: () => [],
  usageReader: () => NO_USAGE,
  judgeEvent,
  judgeError,
} satisfies Dialect);

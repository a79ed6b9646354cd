import {
  type EventVerdict,
  isRetryableStatus,
  recordOf,
  type SseEvent,
  stringOf,
} from "@tokenman/plugin-sdk";
import { NEVER_RETRY } from "./errors.ts";
import { quoted, quotedAt } from "./quoted.ts";

const CONTENT: EventVerdict = Object.freeze({ kind: "content" });
const IDLE: EventVerdict = Object.freeze({ kind: "idle" });
const TERMINAL: EventVerdict = Object.freeze({ kind: "terminal" });

/** The first bytes of a block that begins with its event's name, which chunks do not, and of a comment. */
const FIRST_OF_EVENT = 0x65;
const COLON = 0x3a;
const SPACE = 0x20;

const ERROR = quoted("error");

/** Longer than any spelling of `data: [DONE]`, shorter than any chunk. */
const DONE_BYTES = 64;

/** Whether the block is the `data: [DONE]` that ends a Chat Completions stream. */
export function isDone(event: SseEvent): boolean {
  return event.raw.length <= DONE_BYTES && event.data.trim() === "[DONE]";
}

/**
 * What an event of a Chat Completions stream means. A failure is a chunk with an `error` member; that quoted word
 * cannot occur in a chunk's text, where its quotes are escaped, so most chunks are not parsed.
 */
export function judgeChatEvent(event: SseEvent): EventVerdict {
  if (event.oversize) return CONTENT;
  const { raw } = event;
  if (raw[0] === FIRST_OF_EVENT || quotedAt(raw, ERROR) >= 0) return failureOf(event) ?? CONTENT;
  if (raw.length > DONE_BYTES && raw[0] !== COLON) return CONTENT;
  if (!event.hasData) return IDLE;
  return isDone(event) ? TERMINAL : CONTENT;
}

function failureOf(event: SseEvent): EventVerdict | undefined {
  const data = recordOf(event.json());
  const error = recordOf(data?.["error"]) ?? (event.event === "error" ? data : undefined);
  if (error !== undefined) return failure(error, stringOf(error["type"]));
  const message = stringOf(data?.["error"]);
  return message === undefined ? undefined : failure({ message }, undefined);
}

const RESPONSES_ENDS: ReadonlySet<string> = new Set(["response.completed", "response.incomplete"]);
const HEAD_BYTES = 40;

/**
 * Whether the block may be one that ends a Responses stream, told from its first bytes: `event: response.completed`,
 * `.failed`, `.incomplete` or `error`. True where the block does not begin with its event's name.
 */
export function mayEndResponses(event: SseEvent): boolean {
  if (isUnderWay(event.raw)) return false;
  const head = event.raw.toString("latin1", 0, HEAD_BYTES);
  return (
    !head.startsWith("event:") || /^event: ?(?:error|response\.(?:completed|failed|incomplete)\b)/.test(head)
  );
}

/**
 * Whether the first bytes are those of `event: response.X`, and X begins as no name of an end does: a test of four bytes
 * for nearly all of the events of a stream.
 */
function isUnderWay(raw: Buffer): boolean {
  if (raw[0] !== FIRST_OF_EVENT || raw[5] !== COLON) return false;
  const name = raw[6] === SPACE ? 7 : 6;
  if (raw[name] !== 0x72 || raw[name + 8] !== 0x2e) return false; // "r", "."
  const first = raw[name + 9];
  return first !== 0x63 && first !== 0x66 && first !== 0x69; // "c", "f", "i"
}

/** The event's name: its `event` line, else the `type` in its data. */
export function responsesEventName(event: SseEvent): string {
  const { event: name } = event;
  return name === "message" ? (stringOf(recordOf(event.json())?.["type"]) ?? name) : name;
}

/** What an event of a Responses stream means. Besides `error`, a `response.failed` is a failure that ends it. */
export function judgeResponsesEvent(event: SseEvent): EventVerdict {
  if (event.oversize || !mayEndResponses(event)) return CONTENT;
  if (!event.hasData) return IDLE;
  const name = responsesEventName(event);
  if (RESPONSES_ENDS.has(name)) return TERMINAL;
  if (name === "response.failed") {
    const error = recordOf(recordOf(recordOf(event.json())?.["response"])?.["error"]);
    return failure(error ?? {}, stringOf(error?.["code"]));
  }
  if (name === "error") {
    const data = recordOf(event.json());
    // Seen both flat, as documented, and with the error nested as in an error reply.
    const error = recordOf(data?.["error"]) ?? data ?? {};
    return failure(error, stringOf(error["code"]));
  }
  return isDone(event) ? TERMINAL : CONTENT;
}

const STATUS_OF: ReadonlyMap<string, number> = new Map([
  ["server_error", 500],
  ["internal_server_error", 500],
  ["api_error", 500],
  ["overloaded_error", 503],
  ["service_unavailable", 503],
  ["slow_down", 503],
  ["rate_limit_exceeded", 429],
  ["rate_limit_error", 429],
  ["insufficient_quota", 429],
  ["credit_balance_exhausted", 429],
  ["timeout", 504],
  ["invalid_request_error", 400],
  ["invalid_prompt", 400],
  ["context_length_exceeded", 400],
  ["authentication_error", 401],
  ["permission_error", 403],
  ["not_found_error", 404],
]);

/** An error whose kind is not known is taken for the server's own, unless its name says it is the request's. */
function failure(error: Readonly<Record<string, unknown>>, name: string | undefined): EventVerdict {
  const code = stringOf(error["code"]);
  const numeric = [error["status"], error["code"]].find((value) => typeof value === "number" && value >= 400);
  const type = name ?? code ?? "server_error";
  const status =
    STATUS_OF.get(code ?? "") ??
    STATUS_OF.get(type) ??
    (numeric as number | undefined) ??
    (/invalid|policy|unsupported|too_large|not_found/.test(code ?? type) ? 400 : undefined);
  const isNever = NEVER_RETRY.has(code ?? "") || NEVER_RETRY.has(type);
  return {
    kind: "error",
    type,
    status,
    retryable: !isNever && isRetryableStatus(status ?? 500),
    message: stringOf(error["message"]) ?? "",
  };
}

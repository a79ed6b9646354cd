import {
  type EventVerdict,
  isRetryableStatus,
  recordOf,
  type SseEvent,
  stringOf,
} from "@tokenman/plugin-sdk";
import { NEVER_RETRY, statusOfType } from "./errors.ts";

const CONTENT: EventVerdict = Object.freeze({ kind: "content" });
const IDLE: EventVerdict = Object.freeze({ kind: "idle" });
const TERMINAL: EventVerdict = Object.freeze({ kind: "terminal" });

/**
 * Whether the block is one of a reply's many `content_block_*` events, told by its first bytes: nothing needs decoding.
 * Only those names begin with "c".
 */
export function isContentBlock(event: SseEvent): boolean {
  const { raw } = event;
  return raw[0] === 0x65 && raw[5] === 0x3a && raw[6] === 0x20 && raw[7] === 0x63; // "e….: c"
}

/** The event's name: its `event` line, else the `type` in its data. */
export function eventName(event: SseEvent): string {
  const { event: name } = event;
  return name === "message" ? (stringOf(recordOf(event.json())?.["type"]) ?? name) : name;
}

/** What an event of a Messages stream means. Order and names: Anthropic's streaming documentation; unknown ones pass. */
export function judgeEvent(event: SseEvent): EventVerdict {
  if (event.oversize || isContentBlock(event)) return CONTENT;
  if (!event.hasData) return IDLE;
  switch (eventName(event)) {
    case "ping":
      return IDLE;
    case "message_stop":
      return TERMINAL;
    case "error":
      return errorVerdict(event.json());
    default:
      return CONTENT;
  }
}

function errorVerdict(data: unknown): EventVerdict {
  const error = recordOf(recordOf(data)?.["error"]);
  const type = stringOf(error?.["type"]) ?? "api_error";
  const code = stringOf(recordOf(error?.["details"])?.["error_code"]);
  const status = statusOfType(type);
  return {
    kind: "error",
    type,
    status,
    retryable: (code === undefined || !NEVER_RETRY.has(code)) && isRetryableStatus(status ?? 500),
    message: stringOf(error?.["message"]) ?? "",
  };
}

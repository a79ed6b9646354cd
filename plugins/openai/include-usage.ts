import {
  type Attempt,
  type EventTransform,
  type Exchange,
  type Hooks,
  type JsonPatch,
  parseIndex,
  type Reply,
  recordOf,
  type Slot,
  type SseEvent,
  slot,
  spliceJson,
  withHeader,
} from "@tokenman/plugin-sdk";
import { OpenAiDescription } from "./description.ts";

/** Set on attempts whose provider was asked for usage on TokenMan's own account. */
const Asked: Slot<true> = slot<true>("openai.include-usage");

/**
 * A Chat Completions stream has usage only where the request asks for it. Where somebody tracks usage and the client
 * did not ask, this asks, and takes out of the stream again what the client did not order: the chunk with the usage,
 * and the `"usage":null` of all others. A subscription's traffic is left as it is.
 */
export function includeUsage(hooks: Hooks): void {
  hooks.beforeUpstream.tap(ask);
  hooks.response.tap(takeOut);
}

function ask(exchange: Exchange, attempt: Attempt): void {
  if (!exchange.usageTracked || exchange.dialect?.name !== "openai-chat" || exchange.subscription) return;
  const { description } = exchange;
  if (!(description instanceof OpenAiDescription) || !description.stream) return;
  const patch = patchOf(description.streamOptions);
  if (patch === undefined) return;
  attempt.patch([patch]);
  // Chunks are to be taken out of the stream, which a compressed one would have to be decoded for.
  attempt.headers = withHeader(attempt.headers, "accept-encoding", "identity");
  attempt.set(Asked, true);
}

function patchOf(options: OpenAiDescription["streamOptions"]): JsonPatch | undefined {
  switch (options) {
    case "absent":
      return { op: "add", pointer: "/stream_options", value: { include_usage: true } };
    case "null":
      return { op: "replace", pointer: "/stream_options", value: { include_usage: true } };
    case "silent":
      return { op: "add", pointer: "/stream_options/include_usage", value: true };
    case "declined":
      return { op: "replace", pointer: "/stream_options/include_usage", value: true };
    // Asked for already, or nothing that a server would take.
    case "asked":
    case "other":
      return undefined;
  }
}

function takeOut(reply: Reply): void {
  if (reply.attempt?.get(Asked) === true && reply.streaming) reply.mapEvents(WITHOUT_USAGE);
}

const NULL_AT_END = Buffer.from(',"usage":null}');
const CLOSE = Buffer.from("}");

/** Exported for its test. */
export const WITHOUT_USAGE: EventTransform = Object.freeze({
  event(event: SseEvent): SseEvent | Buffer | undefined {
    const { raw } = event;
    const at = event.oversize ? -1 : raw.indexOf('"usage"');
    if (at < 0) return event;
    // As OpenAI writes it: the member is the last one, so its closing brace is the chunk's own.
    const start = at - 1;
    const end = start + NULL_AT_END.length;
    if (isBlank(raw, end) && raw.subarray(start, end).equals(NULL_AT_END))
      return Buffer.concat([raw.subarray(0, start), CLOSE, raw.subarray(end)]);
    const chunk = recordOf(event.json());
    if (chunk === undefined || !Object.hasOwn(chunk, "usage")) return event;
    if (chunk["usage"] === null) return withoutNull(event);
    const { choices } = chunk;
    return Array.isArray(choices) && choices.length === 0 ? undefined : event;
  },
});

/** Whether nothing but line ends follows. */
function isBlank(raw: Buffer, from: number): boolean {
  for (let at = from; at < raw.length; at++) if (raw[at] !== 0x0a && raw[at] !== 0x0d) return false;
  return true;
}

function withoutNull(event: SseEvent): SseEvent | Buffer {
  try {
    const data = Buffer.from(event.data);
    const spliced = spliceJson(data, parseIndex(data), [{ kind: "patch", op: "remove", pointer: "/usage" }]);
    return event.withData(spliced.toString());
  } catch {
    // Duplicate members and the like: better a field too many than a broken chunk.
    return event;
  }
}

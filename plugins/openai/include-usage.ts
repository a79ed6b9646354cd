import {
  type Attempt,
  type EventTransform,
  type Exchange,
  type Hooks,
  type JsonPatch,
  type Logger,
  type Provider,
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
import { quoted, quotedAt } from "./quoted.ts";

/** Set on attempts whose provider was asked for usage on TokenMan's own account. */
const Asked: Slot<true> = slot<true>("openai.include-usage");

/**
 * Hosts that refuse the field, and tell the usage of a stream without being asked. Mistral: "extra_forbidden" for
 * `stream_options` (github.com/openai/openai-agents-python/issues/442).
 */
const REFUSING = /(?:^|\.)mistral\.ai$/;
/** How much of an error is searched for the field's name. */
const ERROR_BYTES = 16 * 1024;

export interface IncludeUsageOptions {
  /** Which providers are asked, by name; true is all of them. */
  readonly providers: true | ReadonlySet<string>;
  /** Addresses of those that refused the field while this process ran: they are not asked again. */
  readonly refused: Set<string>;
  readonly log: Logger;
}

/**
 * A Chat Completions stream has usage only where the request asks for it. Where somebody tracks usage and the client
 * did not ask, this asks, and takes out of the stream again what the client did not order: the chunk with the usage,
 * and the `"usage":null` of all others. A subscription's traffic is left as it is, and so is that of servers that speak
 * the format but for this field.
 */
export function includeUsage(hooks: Hooks, options: IncludeUsageOptions): void {
  const { refused, log } = options;
  hooks.beforeUpstream.tap((exchange, attempt) => {
    if (mayAsk(attempt.provider, options)) ask(exchange, attempt);
  });
  hooks.response.tap((reply) => {
    const { attempt } = reply;
    if (attempt?.get(Asked) !== true) return;
    if (reply.streaming) reply.mapEvents(WITHOUT_USAGE);
    else if (reply.status === 400 || reply.status === 422)
      onRefusal(reply, () => {
        const { name, apiBase } = attempt.provider;
        refused.add(apiBase ?? name);
        log.warn(
          { provider: name },
          "this provider refuses stream_options.include_usage: it is not asked for the usage of streams any more",
        );
      });
  });
}

function mayAsk({ name, apiBase }: Provider, { providers, refused }: IncludeUsageOptions): boolean {
  if (providers !== true && !providers.has(name)) return false;
  if (refused.size > 0 && refused.has(apiBase ?? name)) return false;
  return apiBase === undefined || !isRefusing(apiBase);
}

const known = new Map<string, boolean>();
function isRefusing(apiBase: string): boolean {
  let refuses = known.get(apiBase);
  if (refuses === undefined) {
    refuses = REFUSING.test(URL.parse(apiBase)?.hostname ?? "");
    known.set(apiBase, refuses);
  }
  return refuses;
}

/** Calls back where the error names the field that TokenMan added. */
function onRefusal(reply: Reply, refused: () => void): void {
  let text = "";
  reply.observe({
    data(chunk) {
      if (text.length < ERROR_BYTES) text += chunk.toString("latin1");
    },
    end() {
      if (/stream_options|include_usage/.test(text)) refused();
    },
  });
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

const USAGE = quoted("usage");
const NULL_AT_END = Buffer.from(',"usage":null}');
const CLOSE = Buffer.from("}");

/** Exported for its test. */
export const WITHOUT_USAGE: EventTransform = Object.freeze({
  event(event: SseEvent): SseEvent | Buffer | undefined {
    const { raw } = event;
    const at = event.oversize ? -1 : quotedAt(raw, USAGE);
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

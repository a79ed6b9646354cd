import { type Exchange, matchesGlob, type Segment } from "@tokenman/plugin-sdk";
import { withoutMoments } from "./moments.ts";

/** The longest body that is taken for a poll by itself, and the longest that patterns are tried on. */
const SHORT_BYTES = 4_096;
const PATTERN_BYTES = 262_144;
/** The longest message that patterns are tried on. */
const MESSAGE_CHARACTERS = 8_192;

export interface PollRules {
  readonly patterns: readonly string[];
  readonly automatic: boolean;
}

/**
 * What a polling request asks, with what differs from poll to poll taken out: two with the same are near-identical.
 * Undefined for a request that is no poll.
 */
export function pollOf(exchange: Exchange, rules: PollRules, nowMs: number): Buffer | undefined {
  const { dialect, request } = exchange;
  const { body } = request;
  const maxBytes = rules.patterns.length > 0 ? PATTERN_BYTES : SHORT_BYTES;
  if (dialect?.outputText === undefined || body === undefined || body.length > maxBytes) return undefined;
  const { description } = exchange;
  if (description === undefined || description.stateful === true || description.tools === "server")
    return undefined;
  const last = lastMessage(exchange.segments);
  if (last === undefined || last.text.length > MESSAGE_CHARACTERS) return undefined;
  const isShort = body.length <= SHORT_BYTES && description.tools === "none";
  const said =
    patternOf(last.text, rules.patterns) ??
    (rules.automatic && isShort ? withoutMoments(last.text, body.toString("utf8"), nowMs) : undefined);
  if (said === undefined) return undefined;
  const { start, end } = last.node;
  return Buffer.concat([body.subarray(0, start), Buffer.from(said), body.subarray(end)]);
}

/** The text that the conversation ends with, where it is the user's. */
function lastMessage(segments: readonly Segment[]): Segment | undefined {
  const last = segments.findLast(({ message }) => message >= 0);
  const isText = last?.kind === "text" && last.role === "user" && !last.sealed && last.node.kind === "string";
  return isText ? last : undefined;
}

/** Which pattern it is that the text fits. White space around the text does not count. */
function patternOf(text: string, patterns: readonly string[]): string | undefined {
  const trimmed = text.trim();
  const pattern = patterns.find((each) => matchesGlob(each, trimmed));
  return pattern === undefined ? undefined : `pattern ${pattern}`;
}

import { validateHeaderName, validateHeaderValue } from "node:http";
import { type Candidate, type RawHeaders, TokenmanError } from "@tokenman/plugin-sdk";
import type { AttemptState } from "../attempt.ts";
import type { ExchangeState } from "../exchange.ts";
import { KernelReply, type ReplyMark } from "../reply/reply.ts";
import { isReplyInit } from "../reply/reply-init.ts";
import type { PluginHandle } from "./plugin-handle.ts";
import type { Tapped } from "./tap-call.ts";

/** What a plugin said before an attempt. */
export type VerdictOf =
  | { readonly by: PluginHandle; readonly skip: string; readonly retryAfterMs?: number }
  | { readonly by: PluginHandle; readonly answer: KernelReply };

/** The reply in what a tap returned; undefined where it gave none. Throws TM_PLUGIN_RESULT. */
export function checkReply(
  tap: Tapped<unknown>,
  value: unknown,
  exchange: ExchangeState,
): KernelReply | undefined {
  if (value === undefined) return undefined;
  // A reply of another exchange has a body that goes to somebody else; `reply.share` is the way to pass one on.
  if (value instanceof KernelReply || !isReplyInit(value))
    throw wrong(tap, "returned", value, "{ status, headers?, body? } or undefined");
  checkHeaders(tap, value.headers ?? NO_HEADERS, NO_HEADERS);
  return KernelReply.from(value, exchange, tap.plugin);
}

/** The verdict in what a tap returned; undefined where it gave none. Throws TM_PLUGIN_RESULT. */
export function checkVerdict(
  tap: Tapped<unknown>,
  value: unknown,
  exchange: ExchangeState,
): VerdictOf | undefined {
  if (value === undefined) return undefined;
  const by = tap.plugin;
  if (typeof value === "object" && value !== null) {
    const { skip, answer, retryAfterMs } = value as { readonly [key: string]: unknown };
    // Not a number, or one that no header can carry: as good as none.
    const isTime = Number.isFinite(retryAfterMs) && (retryAfterMs as number) >= 0;
    if (typeof skip === "string")
      return isTime ? { by, skip, retryAfterMs: retryAfterMs as number } : { by, skip };
    const reply = answer === undefined ? undefined : checkReply(tap, answer, exchange);
    if (reply !== undefined) return { by, answer: reply };
  }
  throw wrong(tap, "returned", value, "{ skip: reason }, { answer: reply } or undefined");
}

/** What a tap set on the exchange. Throws TM_PLUGIN_RESULT. */
export function checkCandidates(tap: Tapped<unknown>, candidates: unknown): void {
  if (!Array.isArray(candidates)) throw wrong(tap, "set candidates to", candidates, "a list of candidates");
  for (const each of candidates as (Partial<Candidate> | null | undefined)[]) {
    if (typeof each?.provider?.name !== "string" || typeof each.credential?.kind !== "string")
      throw wrong(tap, "set a candidate to", each, "{ provider, credential, reason }");
  }
}

/** What a tap set on the attempt. Throws TM_PLUGIN_RESULT. */
export function checkAttempt(tap: Tapped<unknown>, attempt: AttemptState, before: RawHeaders): void {
  if (attempt.headers !== before) checkHeaders(tap, attempt.headers, before);
}

/** What a tap set on the reply. Throws TM_PLUGIN_RESULT. */
export function checkHead(tap: Tapped<unknown>, reply: KernelReply, before: ReplyMark): void {
  if (reply.headers !== before.headers) checkHeaders(tap, reply.headers, before.headers);
  if (reply.status === before.status) return;
  if (!Number.isInteger(reply.status) || reply.status < 200 || reply.status > 599)
    throw wrong(tap, "set the status to", reply.status, "an integer from 200 to 599");
}

const NO_HEADERS: RawHeaders = [];
/** What each name was last found good with: plugins set few headers, and mostly to what they set them to before. */
const good = new Map<string, string>();
const MAX_GOOD = 256;
const MAX_GOOD_CHARACTERS = 256;

/** Only what differs from `before`: the rest came over the wire. */
function checkHeaders(tap: Tapped<unknown>, headers: unknown, before: RawHeaders): void {
  if (!Array.isArray(headers) || headers.length % 2 !== 0)
    throw wrong(tap, "set headers to", headers, "a flat list of names and values");
  let from = 0;
  while (from < headers.length && headers[from] === before[from]) from++;
  const longer = headers.length - before.length;
  let to = headers.length;
  while (to > from && headers[to - 1] === before[to - 1 - longer]) to--;
  for (let index = from - (from % 2); index < to; index += 2) {
    const name = headers[index];
    const value = headers[index + 1];
    if (value !== undefined && good.get(name) === value) continue;
    try {
      validateHeaderName(name);
      if (typeof value !== "string") throw new TypeError(`the value of ${name} is no string`);
      validateHeaderValue(name, value);
      if (value.length > MAX_GOOD_CHARACTERS) continue;
      if (good.size === MAX_GOOD) good.clear();
      good.set(name, value);
    } catch (cause) {
      const { plugin, hook } = tap;
      const message = `${plugin.name}'s ${hook} hook set a header that cannot be sent: ${(cause as Error).message}`;
      throw new TokenmanError("TM_PLUGIN_RESULT", message, { cause, plugin: plugin.name, hook });
    }
  }
}

function wrong(
  { plugin, hook }: Tapped<unknown>,
  did: string,
  value: unknown,
  expected: string,
): TokenmanError {
  const message = `${plugin.name}'s ${hook} hook ${did} ${kindOf(value)}; expected ${expected}`;
  return new TokenmanError("TM_PLUGIN_RESULT", message, { plugin: plugin.name, hook });
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  if (value instanceof KernelReply) return "a reply of another exchange";
  if (typeof value === "string" || typeof value === "number") return JSON.stringify(value).slice(0, 60);
  if (typeof value === "object" && "status" in value)
    return "a reply with an unusable status, header or body";
  return value === undefined ? "undefined" : `a value of type ${typeof value}`;
}

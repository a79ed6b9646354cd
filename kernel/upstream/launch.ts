import type { Readable } from "node:stream";
import { type ReplyInit, TokenmanError } from "@tokenman/plugin-sdk";
import type { AttemptState } from "../attempt.ts";
import type { ExchangeState } from "../exchange.ts";
import { KernelReply } from "../reply/reply.ts";
import { isReplyInit } from "../reply/reply-init.ts";
import type { PushSource } from "../reply/source.ts";
import type { Connections } from "./connections.ts";
import { type DispatchEvents, dispatch } from "./dispatch.ts";
import { relayedHeaders, withCredential } from "./outgoing.ts";
import { joinPath } from "./path.ts";
import { followUsage } from "./usage.ts";

/** How much of a body that would stream through is read in for a provider in this process. */
const MAX_COLLECTED_BYTES = 32 * 1024 * 1024;

/** What becomes of a launched attempt: a reply, or a failure before there was one. Exactly one of them, once. */
export interface LaunchEvents {
  /** `source` is the held body where it can be looked at before it is passed on. */
  replied(attempt: AttemptState, reply: KernelReply, source: PushSource | undefined): void;
  failed(attempt: AttemptState, error: TokenmanError, bytesSent: boolean): void;
}
export type Launch = (exchange: ExchangeState, attempt: AttemptState, events: LaunchEvents) => void;

/** Sends attempts on their way: over HTTP, or to a provider in this process. */
export function makeLaunch(connections: Connections): Launch {
  return (exchange, attempt, events) => {
    const sending = new Sending(connections, exchange, attempt, events);
    try {
      attempt.headers = withCredential(
        attempt.headers,
        attempt.candidate,
        exchange.home.formats,
        exchange.format,
      );
      if (attempt.provider.answer !== undefined) void answerHere(exchange, attempt, sending);
      else sending.send();
    } catch (cause) {
      sending.error(asError(cause), false);
    }
  };
}

/** One attempt on its way. One object for all that may come of it: there is one for every request. */
class Sending implements DispatchEvents {
  readonly #connections: Connections;
  readonly #exchange: ExchangeState;
  readonly #attempt: AttemptState;
  readonly #events: LaunchEvents;
  #settled = false;

  constructor(
    connections: Connections,
    exchange: ExchangeState,
    attempt: AttemptState,
    events: LaunchEvents,
  ) {
    this.#connections = connections;
    this.#exchange = exchange;
    this.#attempt = attempt;
    this.#events = events;
  }

  /** Sends it over HTTP. */
  send(): void {
    const exchange = this.#exchange;
    const attempt = this.#attempt;
    const target = this.#connections.to(attempt.provider, exchange.home.streamIdleMs);
    const upload = exchange.request.rawBody === undefined ? exchange.end?.upload() : undefined;
    if (upload === undefined && exchange.request.rawBody === undefined)
      throw new TokenmanError("TM_INTERNAL", "a body that streams through was to be sent twice");
    const outgoing = upload === undefined ? exchange.content.outgoingBody(attempt) : undefined;
    if (outgoing?.edited === true) attempt.headers = withoutCoding(attempt.headers);
    const request = {
      method: exchange.request.method,
      path: joinPath(target.prefix, exchange.request.target, exchange.request.sentPath),
      headers: framed(attempt.headers, exchange, outgoing?.body, upload),
      body: upload ?? (outgoing!.body.length === 0 ? undefined : outgoing!.body),
      timeouts: target.timeouts,
    };
    const call = dispatch(target.origin, request, this);
    attempt.cancellation.onCancel(() => call.abort());
  }

  head(status: number, statusText: string, headers: readonly string[], body: PushSource): void {
    const relayed = relayedHeaders(headers);
    this.#attempt.headCame(status, relayed);
    const reply = new KernelReply({ status, statusText, headers: relayed }, body, {
      origin: "provider",
      attempt: this.#attempt,
      maxBytes: this.#exchange.maxResponseBytes,
      unwanted: this.#exchange.cancellation,
    });
    this.reply(reply, body);
  }
  error(error: TokenmanError, bytesSent: boolean): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#events.failed(this.#attempt, error, bytesSent);
  }
  informational(status: number, headers: readonly string[]): void {
    this.#exchange.end?.inform(status, headers);
  }
  firstByte(): void {
    this.#attempt.firstByteMs = this.#attempt.elapsedMs();
  }
  reply(reply: KernelReply, source: PushSource | undefined): void {
    if (this.#settled) {
      reply.discard();
      return;
    }
    this.#settled = true;
    followUsage(this.#exchange, this.#attempt, reply);
    this.#events.replied(this.#attempt, reply, source);
  }
}

/** Like `answer`, but a provider that does not come to its reply's head in time is called off. */
async function answerInTime(
  attempt: AttemptState,
  answer: Promise<ReplyInit> | ReplyInit,
): Promise<ReplyInit> {
  const { headMs } = attempt.provider.timeouts;
  if (headMs <= 0 || !(answer instanceof Promise)) return answer;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new TokenmanError("TM_UPSTREAM_TIMEOUT", `no reply's head within ${headMs} ms`));
      attempt.cancel();
    }, headMs);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function answerHere(exchange: ExchangeState, attempt: AttemptState, sending: Sending): Promise<void> {
  try {
    const upload = exchange.request.rawBody === undefined ? exchange.end?.upload() : undefined;
    const { body, edited } =
      upload === undefined
        ? exchange.content.outgoingBody(attempt)
        : { body: await collected(upload), edited: false };
    if (edited) attempt.headers = withoutCoding(attempt.headers);
    // A provider in this process reads JSON, not codings.
    const readable = edited ? body : (exchange.request.body ?? body);
    const { method, target } = exchange.request;
    const request = { method, path: target, headers: attempt.headers, body: readable };
    const init = await answerInTime(attempt, attempt.provider.answer!(request, exchange, attempt));
    if (!isReplyInit(init))
      throw new TokenmanError(
        "TM_PLUGIN_RESULT",
        `provider ${attempt.provider.name} did not answer with a reply`,
      );
    const reply = KernelReply.answered(init, attempt, exchange.maxResponseBytes, exchange.cancellation);
    attempt.headCame(reply.status, reply.headers);
    sending.reply(reply, undefined);
  } catch (cause) {
    sending.error(
      attempt.cancellation.cancelled &&
        !(cause instanceof TokenmanError && cause.code === "TM_UPSTREAM_TIMEOUT")
        ? new TokenmanError("TM_CLIENT_GONE", undefined, { cause })
        : asError(cause),
      true,
    );
  }
}

/** All of an upload, for a provider that takes requests whole. Throws TM_BODY_TOO_LARGE. */
async function collected(upload: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of upload) {
    bytes += (chunk as Buffer).length;
    if (bytes > MAX_COLLECTED_BYTES) throw new TokenmanError("TM_BODY_TOO_LARGE");
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks, bytes);
}

const CODED = new Set(["content-encoding", "content-md5", "digest", "repr-digest", "content-digest"]);
function withoutCoding(headers: readonly string[]): readonly string[] {
  return headers.filter((_, index) => !CODED.has(headers[index - (index % 2)]!.toLowerCase()));
}

/** Content-Length for an upload of known length; a body at hand is measured by the HTTP client. */
function framed(
  headers: readonly string[],
  exchange: ExchangeState,
  body: Buffer | undefined,
  upload: Readable | undefined,
): readonly string[] {
  if (upload !== undefined) {
    const length = exchange.request.header("content-length");
    return length === undefined ? headers : [...headers, "content-length", length];
  }
  // A request that had an empty body keeps saying so.
  if (body !== undefined && body.length === 0 && exchange.request.header("content-length") === "0")
    return [...headers, "content-length", "0"];
  return headers;
}

function asError(cause: unknown): TokenmanError {
  if (cause instanceof TokenmanError) return cause;
  const said = cause instanceof Error ? cause.message : String(cause);
  return new TokenmanError("TM_INTERNAL", said, { cause });
}

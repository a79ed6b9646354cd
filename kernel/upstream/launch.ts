import type { Readable } from "node:stream";
import { type Dialect, type ReplyInit, type ReplyObserver, TokenmanError } from "@tokenman/plugin-sdk";
import type { AttemptState } from "../attempt.ts";
import type { ExchangeState } from "../exchange.ts";
import { KernelReply } from "../reply/reply.ts";
import { isReplyInit } from "../reply/reply-init.ts";
import type { PushSource } from "../reply/source.ts";
import type { Connections } from "./connections.ts";
import { type DispatchEvents, dispatch } from "./dispatch.ts";
import { relayedHeaders, withCredential } from "./outgoing.ts";

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
    follow(this.#exchange, this.#attempt, reply);
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

/** Follows the reply's body for its usage, where somebody asked for it; else nothing is parsed. */
function follow(exchange: ExchangeState, attempt: AttemptState, reply: KernelReply): void {
  const { dialect } = exchange;
  if (dialect === undefined || !exchange.usageTracked) return;
  try {
    reply.observe(usageObserver(dialect, attempt, reply));
  } catch {
    // A dialect is a plugin's: where it fails the usage is not known, and the client has its reply all the same.
  }
}

function usageObserver(dialect: Dialect, attempt: AttemptState, reply: KernelReply): ReplyObserver {
  const reader = dialect.usageReader();
  attempt.reader = reader;
  if (reply.streaming) {
    attempt.terminal = false;
    let hasBegun = false;
    return {
      event(event) {
        reader.event(event);
        if (attempt.terminal === true) return;
        const verdict = dialect.judgeEvent(event);
        if (verdict.kind === "content") hasBegun = true;
        else if (verdict.kind === "terminal") attempt.terminal = true;
        else if (verdict.kind === "error") {
          attempt.streamError ??= verdict;
          if (!hasBegun) attempt.failedFirst = true;
        }
      },
      end: (_end, truncated) => {
        // Nobody saw the end of a copy that stopped at its cap.
        if (truncated) attempt.terminal = undefined;
      },
    };
  }
  const chunks: Buffer[] = [];
  return {
    data: (chunk) => void chunks.push(chunk),
    end: (end, truncated) => {
      if (end === "complete" && !truncated) reader.body(Buffer.concat(chunks), reply.status);
    },
  };
}

/**
 * The provider's base before the client's path, with the query of its target. A base that ends in `/v1` takes the place of the path's own. Throws
 * TM_BAD_REQUEST for a path that would leave the folder of the base.
 */
export function joinPath(prefix: string, target: string, sentPath: string): string {
  const query = target.indexOf("?");
  const path = query < 0 ? sentPath : sentPath + target.slice(query);
  if (prefix === "") return path;
  if (DOTS.test(sentPath))
    throw new TokenmanError(
      "TM_BAD_REQUEST",
      "the path has a dot segment, and leads out of the provider's base",
    );
  return prefix.endsWith("/v1") && path.startsWith("/v1/") ? prefix + path.slice(3) : prefix + path;
}
/** A "." or ".." between slashes, in any of the spellings that servers read as one. */
const DOTS = /[/\\](?:\.|%2e){1,2}(?:[/\\]|%2f|%5c|$)|%(?:2f|5c)(?:\.|%2e){1,2}(?:[/\\]|%2f|%5c|$)/i;

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

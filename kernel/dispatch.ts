import type { Readable } from "node:stream";
import { type ErrorCode, type ProviderTimeouts, TokenmanError } from "@tokenman/plugin-sdk";
import type { Dispatcher } from "undici";
import type { Connection, Connections, Origin } from "./connections.ts";
import { PushSource } from "./source.ts";

export interface DispatchRequest {
  readonly origin: string;
  readonly method: string;
  /** Path and query, with the provider's base path. */
  readonly path: string;
  readonly headers: readonly string[];
  /** Bytes at hand, or an upload that streams through (sent at most once). */
  readonly body: Buffer | Readable | undefined;
  readonly timeouts: ProviderTimeouts;
}

/** What an upstream call reports; `head` and `error` exclude each other, and come once. */
export interface DispatchEvents {
  head(status: number, statusText: string, headers: string[], body: PushSource): void;
  /** The call failed before its head. */
  error(error: TokenmanError, bytesSent: boolean): void;
  informational(status: number, headers: string[]): void;
  firstByte(): void;
}

/** An upstream call under way. */
export interface DispatchCall {
  abort(): void;
}

/** Sends one request upstream. A reset on a reused socket before any byte came is tried once more on a fresh one. */
export function dispatch(
  connections: Connections,
  request: DispatchRequest,
  events: DispatchEvents,
): DispatchCall {
  const origin = connections.to(request.origin, request.timeouts.connectMs);
  const call = new Call(origin, request, events);
  call.begin(false);
  return call;
}

/** Undici's handler of one call, in its raw form: header arrays as they came, no parsed objects. */
class Call implements DispatchCall {
  readonly #origin: Origin;
  readonly #request: DispatchRequest;
  readonly #events: DispatchEvents;
  #connection: Connection | undefined;
  #abort: ((reason?: Error) => void) | undefined;
  #resume: (() => void) | undefined;
  #body: PushSource | undefined;
  #aborted = false;
  #answered = false;
  #sent = false;
  #reused = false;
  #retried = false;

  constructor(origin: Origin, request: DispatchRequest, events: DispatchEvents) {
    this.#origin = origin;
    this.#request = request;
    this.#events = events;
  }

  begin(fresh: boolean): void {
    const connection = this.#origin.take(fresh);
    this.#connection = connection;
    this.#reused = connection.reused;
    const { method, path, headers, body, timeouts } = this.#request;
    connection.client.dispatch(
      {
        origin: this.#request.origin,
        method: method as "POST",
        path,
        headers: headers as string[],
        body: body ?? null,
        headersTimeout: timeouts.headMs,
        bodyTimeout: timeouts.idleMs,
      },
      // Undici's handler types name the parsed interface only; it takes the raw one below as well, and calls that directly.
      this as unknown as Dispatcher.DispatchHandler,
    );
  }
  abort(): void {
    if (this.#aborted) return;
    this.#aborted = true;
    this.#abort?.(new TokenmanError("TM_CLIENT_GONE"));
  }

  onConnect(abort: (reason?: Error) => void): void {
    this.#abort = abort;
    if (this.#aborted) abort(new TokenmanError("TM_CLIENT_GONE"));
  }
  onBodySent(): void {
    this.#sent = true;
  }
  onRequestSent(): void {
    this.#sent = true;
  }
  onResponseStarted(): void {
    this.#answered = true;
  }
  onHeaders(status: number, rawHeaders: Buffer[], resume: () => void, statusText: string): boolean {
    this.#answered = true;
    const headers = rawHeaders.map(latin1);
    if (status < 200) {
      this.#events.informational(status, headers);
      return true;
    }
    this.#resume = resume;
    this.#body = new PushSource({ resume: () => this.#resume?.(), abort: () => this.abort() });
    this.#events.head(status, statusText, headers, this.#body);
    return true;
  }
  #first = true;
  onData(chunk: Buffer): boolean {
    if (this.#first) {
      this.#first = false;
      this.#events.firstByte();
    }
    return this.#body!.push(chunk);
  }
  onComplete(trailers: Buffer[] | null): void {
    this.#origin.give(this.#connection!);
    this.#body!.finish(trailers !== null && trailers.length > 0 ? trailers.map(latin1) : undefined);
  }
  onError(cause: Error): void {
    const connection = this.#connection!;
    this.#origin.drop(connection);
    if (this.#body !== undefined) {
      this.#body.fail(upstreamError(cause, true));
      return;
    }
    if (this.#mayTryAgain(cause)) {
      this.#retried = true;
      this.#sent = false;
      this.begin(true);
      return;
    }
    this.#events.error(upstreamError(cause, false), this.#sent);
  }
  #mayTryAgain(cause: Error): boolean {
    if (!this.#reused || this.#answered || this.#aborted || this.#retried) return false;
    const { body } = this.#request;
    if (body !== undefined && !Buffer.isBuffer(body)) return false;
    return isReset(cause);
  }
}

function latin1(bytes: Buffer): string {
  return bytes.toString("latin1");
}

function codeOf(cause: Error): string {
  return (cause as NodeJS.ErrnoException).code ?? "";
}
function isReset(cause: Error): boolean {
  return ["ECONNRESET", "EPIPE", "UND_ERR_SOCKET"].includes(codeOf(cause));
}

const CONNECT_CODES = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ETIMEDOUT",
  "EADDRNOTAVAIL",
  "EACCES",
  "EMFILE",
  "ENFILE",
  "UND_ERR_CONNECT_TIMEOUT",
]);

/** What went wrong with an upstream, in TokenMan's terms. `afterHead` tells a cut reply from none. */
function upstreamError(cause: Error, afterHead: boolean): TokenmanError {
  if (cause instanceof TokenmanError) return cause;
  const code = codeOf(cause);
  return new TokenmanError(
    classify(code, afterHead),
    `${code === "" ? cause.name : code}: ${cause.message}`,
    { cause },
  );
}

function classify(code: string, afterHead: boolean): ErrorCode {
  if (code === "UND_ERR_HEADERS_TIMEOUT") return "TM_UPSTREAM_TIMEOUT";
  if (code === "UND_ERR_BODY_TIMEOUT") return "TM_UPSTREAM_IDLE";
  if (afterHead) return "TM_UPSTREAM_CUT";
  if (CONNECT_CODES.has(code)) return "TM_UPSTREAM_CONNECT";
  if (/CERT|TLS|SSL|SELF_SIGNED|UNABLE_TO/.test(code)) return "TM_UPSTREAM_TLS";
  if (code.startsWith("HPE_") || code === "UND_ERR_HEADERS_OVERFLOW") return "TM_UPSTREAM_PROTOCOL";
  return "TM_UPSTREAM_RESET";
}

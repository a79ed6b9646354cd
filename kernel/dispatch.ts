import { STATUS_CODES } from "node:http";
import type { Readable } from "node:stream";
import { type ErrorCode, type ProviderTimeouts, TokenmanError } from "@tokenman/plugin-sdk";
import type { Dispatcher } from "undici";
import type { Connection, Connections, Origin } from "./connections.ts";
import { PushSource } from "./source.ts";
import type { Watched } from "./watchdog.ts";

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
class Call implements DispatchCall, Watched {
  readonly #origin: Origin;
  readonly #request: DispatchRequest;
  readonly #events: DispatchEvents;
  #connection: Connection | undefined;
  #abort: ((reason?: Error) => void) | undefined;
  #resume: (() => void) | undefined;
  #body: PushSource | undefined;
  #first = true;
  #aborted = false;
  #over = false;
  #connected = false;
  #reused = false;
  #answered = false;
  #sent = false;
  #retried = false;

  constructor(origin: Origin, request: DispatchRequest, events: DispatchEvents) {
    this.#origin = origin;
    this.#request = request;
    this.#events = events;
  }

  begin(fresh: boolean): void {
    const connection = this.#origin.take(fresh);
    this.#connection = connection;
    this.#abort = undefined;
    this.#connected = false;
    this.#sent = false;
    const { method, path, headers, body } = this.#request;
    connection.client.dispatch(
      {
        origin: this.#request.origin,
        method: method as "POST",
        path,
        headers: headers as string[],
        body: body ?? null,
        headersTimeout: 0,
        bodyTimeout: 0,
      },
      // Undici's handler types name the parsed interface only; it takes the raw one below as well, and calls that directly.
      this as unknown as Dispatcher.DispatchHandler,
    );
  }
  abort(): void {
    if (this.#aborted || this.#over) return;
    this.#aborted = true;
    const reason = new TokenmanError("TM_CLIENT_GONE");
    if (this.#abort !== undefined) this.#abort(reason);
    // Not on a socket yet: undici has no other way to call a request off that waits for its connection.
    else this.#connection!.destroy(reason);
  }

  onConnect(abort: (reason?: Error) => void): void {
    this.#abort = abort;
    this.#connected = true;
    // Only now is it known which socket it is: a reused connection may have had to connect anew.
    this.#reused = this.#connection!.served > 0;
    this.#connection!.waiting = true;
  }
  onBodySent(): void {
    this.#sent = true;
  }
  onRequestSent(): void {
    this.#sent = true;
    if (this.#body === undefined) this.#connection!.headWatch.arm(this.#request.timeouts.headMs, this);
  }
  onResponseStarted(): void {
    this.#answered = true;
    this.#connection!.waiting = false;
  }
  onHeaders(status: number, rawHeaders: Buffer[], resume: () => void, statusText: string): boolean {
    this.#answered = true;
    const headers = rawHeaders.map(latin1);
    if (status < 200) {
      this.#events.informational(status, headers);
      return true;
    }
    this.#resume = resume;
    const { headWatch, bodyWatch } = this.#connection!;
    headWatch.disarm();
    bodyWatch.arm(this.#request.timeouts.idleMs, this);
    this.#body = new PushSource({
      resume: () => {
        bodyWatch.go();
        // Not at once: undici has one parser for all, and asserts that none of its callbacks is on the stack.
        queueMicrotask(() => {
          if (!this.#aborted) this.#resume?.();
        });
      },
      abort: () => this.abort(),
    });
    this.#events.head(status, wholePhrase(status, statusText), headers, this.#body);
    // Undici takes the length in a 204 or 304, which is the resource's, for the body's, and calls the call broken.
    if (status === 204 || status === 304) this.#body.finish(undefined);
    return true;
  }
  onData(chunk: Buffer): boolean {
    if (this.#first) {
      this.#first = false;
      this.#events.firstByte();
    }
    const { bodyWatch } = this.#connection!;
    bodyWatch.touch();
    const more = this.#body!.push(chunk);
    if (!more) bodyWatch.hold();
    return more;
  }
  onComplete(trailers: Buffer[] | null): void {
    const connection = this.#connection!;
    if (connection.broken) {
      this.#failed(
        new TokenmanError("TM_UPSTREAM_CUT", "the connection was reset in the middle of the body"),
      );
      return;
    }
    this.#end();
    this.#origin.give(connection);
    this.#body!.finish(trailers !== null && trailers.length > 0 ? trailers.map(latin1) : undefined);
  }
  onError(cause: Error): void {
    if (this.#over) return;
    if (this.#mayTryAgain(cause)) {
      this.#origin.drop(this.#connection!);
      this.#retried = true;
      this.begin(true);
    } else this.#failed(cause);
  }

  /** The head did not come in time, or the body fell silent. */
  expired(): void {
    const { headMs, idleMs } = this.#request.timeouts;
    const error =
      this.#body === undefined
        ? new TokenmanError("TM_UPSTREAM_TIMEOUT", `no reply's head within ${headMs} ms`)
        : new TokenmanError("TM_UPSTREAM_IDLE", `no byte of the reply for ${idleMs} ms`);
    this.#abort?.(error);
  }
  #failed(cause: Error): void {
    this.#end();
    this.#origin.drop(this.#connection!);
    const error = upstreamError(
      cause,
      this.#body !== undefined ? "body" : this.#answered ? "answer" : this.#connected ? "head" : "connect",
    );
    if (this.#body !== undefined) this.#body.fail(error);
    else this.#events.error(error, this.#sent);
  }
  /** The connection may serve another request from here on: no late call may reach it through this one. */
  #end(): void {
    this.#over = true;
    this.#connection?.headWatch.disarm();
    this.#connection?.bodyWatch.disarm();
    this.#abort = undefined;
    this.#resume = undefined;
  }
  #mayTryAgain(cause: Error): boolean {
    if (!this.#reused || this.#answered || this.#aborted || this.#retried) return false;
    const { body } = this.#request;
    if (body !== undefined && !Buffer.isBuffer(body)) return false;
    return isReset(cause);
  }
}

/** Of a reason phrase that came in several reads undici keeps the last piece: the usual one is told by its end. */
function wholePhrase(status: number, phrase: string): string {
  const usual = STATUS_CODES[status] ?? "";
  return phrase !== "" && usual.endsWith(phrase) ? usual : phrase;
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

/** What a call was waiting for when it failed; "answer": for the rest of a head that had begun. */
type Phase = "connect" | "head" | "answer" | "body";

/** What went wrong with an upstream, in TokenMan's terms. */
function upstreamError(cause: Error, phase: Phase): TokenmanError {
  if (cause instanceof TokenmanError) return cause;
  const code = codeOf(cause);
  return new TokenmanError(classify(code, phase), `${code === "" ? cause.name : code}: ${cause.message}`, {
    cause,
  });
}

function classify(code: string, phase: Phase): ErrorCode {
  // Undici's own checks: a header or path that HTTP does not allow was never sent.
  if (code === "UND_ERR_INVALID_ARG" || code === "UND_ERR_NOT_SUPPORTED") return "TM_BAD_REQUEST";
  if (code === "UND_ERR_HEADERS_TIMEOUT") return "TM_UPSTREAM_TIMEOUT";
  if (code === "UND_ERR_BODY_TIMEOUT") return "TM_UPSTREAM_IDLE";
  if (phase === "body") return "TM_UPSTREAM_CUT";
  if (phase === "connect")
    return /CERT|TLS|SSL|SELF_SIGNED|UNABLE_TO/.test(code) ? "TM_UPSTREAM_TLS" : "TM_UPSTREAM_CONNECT";
  if (code.startsWith("HPE_") || code === "UND_ERR_HEADERS_OVERFLOW") return "TM_UPSTREAM_PROTOCOL";
  // What was answered in part must not be sent twice: whoever decides about that is told apart from a plain reset.
  if (phase === "answer") return "TM_UPSTREAM_CUT";
  return "TM_UPSTREAM_RESET";
}

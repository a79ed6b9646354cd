import { STATUS_CODES } from "node:http";
import type { Readable } from "node:stream";
import { TokenmanError } from "@tokenman/plugin-sdk";
import type { Dispatcher } from "undici";
import { PushSource } from "../reply/source.ts";
import type { Watched } from "../watchdog.ts";
import type { Connection } from "./connection.ts";
import type { Origin, Waiting } from "./origin.ts";
import type { Timeouts } from "./target.ts";
import { UploadWatch } from "./upload-watch.ts";
import { isReset, upstreamError } from "./upstream-error.ts";

export interface DispatchRequest {
  readonly method: string;
  /** Path and query, with the provider's base path. */
  readonly path: string;
  readonly headers: readonly string[];
  /** Bytes at hand, or an upload that streams through (sent at most once). */
  readonly body: Buffer | Readable | undefined;
  readonly timeouts: Timeouts;
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
export function dispatch(origin: Origin, request: DispatchRequest, events: DispatchEvents): DispatchCall {
  const call = new Call(origin, request, events);
  call.start();
  return call;
}

/** Undici's handler of one call, in its raw form: header arrays as they came, no parsed objects. */
class Call implements DispatchCall, Watched, Waiting {
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
  #upload: UploadWatch | undefined;
  /** While it waits for a connection. */
  #patience: NodeJS.Timeout | undefined;
  #deadline: NodeJS.Timeout | undefined;

  constructor(origin: Origin, request: DispatchRequest, events: DispatchEvents) {
    this.#origin = origin;
    this.#request = request;
    this.#events = events;
  }

  start(): void {
    const { totalMs, headMs } = this.#request.timeouts;
    if (totalMs > 0) this.#deadline = setTimeout(() => this.#late(totalMs), totalMs).unref();
    if (this.#origin.free) {
      this.granted(this.#origin.take());
      return;
    }
    this.#origin.enqueue(this);
    if (headMs <= 0) return;
    this.#patience = setTimeout(() => {
      const message = `none of its connections became free within ${headMs} ms`;
      this.#stop(new TokenmanError("TM_UPSTREAM_BUSY", message));
    }, headMs).unref();
  }
  /** There is a connection for it. */
  granted(connection: Connection): void {
    clearTimeout(this.#patience);
    this.#connection = connection;
    this.#abort = undefined;
    this.#connected = false;
    this.#sent = false;
    const { method, path, headers, body } = this.#request;
    const { url, forward } = this.#origin;
    connection.client.dispatch(
      {
        origin: url,
        method: method as "POST",
        path: forward === undefined ? path : url + path,
        headers: (forward === undefined ? headers : [...headers, ...forward.headers]) as string[],
        body: body ?? null,
        headersTimeout: 0,
        bodyTimeout: 0,
      },
      // Undici's handler types name the parsed interface only; it takes the raw one below as well, and calls that directly.
      this as unknown as Dispatcher.DispatchHandler,
    );
  }
  abort(): void {
    if (!this.#over) this.#stop(new TokenmanError("TM_CLIENT_GONE"));
  }
  /** Ends it with `reason`, however far it has come. */
  #stop(reason: TokenmanError): void {
    if (this.#aborted) return;
    this.#aborted = true;
    if (this.#abort !== undefined) this.#abort(reason);
    else if (this.#connection === undefined) {
      this.#origin.dequeue(this);
      this.#end();
      this.#events.error(reason, false);
    }
    // Not on a socket yet: undici has no other way to call a request off that waits for its connection.
    else this.#connection.destroy(reason);
  }

  onConnect(abort: (reason?: Error) => void): void {
    this.#abort = abort;
    this.#connected = true;
    // Only now is it known which socket it is: a reused connection may have had to connect anew.
    this.#reused = this.#connection!.served > 0;
    this.#connection!.waiting = true;
    const { body, timeouts } = this.#request;
    if (body !== undefined && !Buffer.isBuffer(body)) this.#watchUpload(timeouts.idleMs);
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
    // Not the provider's: whoever answers so stands before it, and the client has no password for it.
    if (status === 407 && this.#origin.forward !== undefined) {
      this.#stop(new TokenmanError("TM_UPSTREAM_PROXY", "the proxy wants another user or password"));
      return true;
    }
    if (status < 200) {
      this.#events.informational(status, headers);
      return true;
    }
    this.#resume = resume;
    const { headWatch, bodyWatch } = this.#connection!;
    headWatch.disarm();
    this.#upload?.stop();
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
    this.#events.head(
      status,
      wholePhrase(status, statusText, this.#connection!.firstRead),
      headers,
      this.#body,
    );
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
    if (connection.failure !== undefined) {
      this.#failed(
        new TokenmanError("TM_UPSTREAM_CUT", "the connection was reset in the middle of the body"),
      );
      return;
    }
    this.#end();
    this.#origin.give(connection);
    this.#body!.finish(trailers !== null && trailers.length > 0 ? trailers.map(latin1) : undefined);
  }
  onError(told: Error): void {
    if (this.#over) return;
    const cause = told instanceof TokenmanError ? told : (this.#connection?.failure ?? told);
    if (this.#mayTryAgain(cause)) {
      this.#retried = true;
      this.granted(this.#origin.replace(this.#connection!));
    } else this.#failed(cause);
  }

  /** The head did not come in time, or the body fell silent. */
  expired(): void {
    const { headMs, idleMs } = this.#request.timeouts;
    if (this.#body !== undefined)
      this.#stop(new TokenmanError("TM_UPSTREAM_IDLE", `no byte of the reply for ${idleMs} ms`));
    // The time to the head begins with the request's last byte, and that has not left yet.
    else if ((this.#connection!.socket?.writableLength ?? 0) > 0) {
      this.#connection!.socket!.once("drain", () => {
        if (!this.#over && this.#body === undefined) this.#connection!.headWatch.arm(headMs, this);
      });
      if (this.#upload === undefined) this.#watchUpload(idleMs);
    } else this.#stop(new TokenmanError("TM_UPSTREAM_TIMEOUT", `no reply's head within ${headMs} ms`));
  }
  #watchUpload(idleMs: number): void {
    const { socket } = this.#connection!;
    if (idleMs <= 0 || socket === undefined) return;
    this.#upload = new UploadWatch(socket, idleMs, () =>
      this.#stop(new TokenmanError("TM_UPSTREAM_IDLE", `no byte of the request was taken for ${idleMs} ms`)),
    );
  }
  #late(totalMs: number): void {
    if (!this.#over)
      this.#stop(new TokenmanError("TM_UPSTREAM_DEADLINE", `not complete after ${totalMs} ms`));
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
    this.#upload?.stop();
    clearTimeout(this.#patience);
    clearTimeout(this.#deadline);
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

/** "HTTP/1.1 200 " */
const STATUS_BYTES = 13;

/**
 * Of a reason phrase that came in several reads undici keeps the last piece: the usual one is told by its end. One that is
 * whole within the first read is what the server said.
 */
function wholePhrase(status: number, phrase: string, firstRead: number): string {
  const usual = STATUS_CODES[status] ?? "";
  const isSplit = firstRead <= STATUS_BYTES + usual.length;
  return isSplit && phrase !== "" && usual.endsWith(phrase) ? usual : phrase;
}

function latin1(bytes: Buffer): string {
  return bytes.toString("latin1");
}

import type { IncomingMessage, ServerResponse } from "node:http";
import {
  type Format,
  headerValue,
  type Logger,
  type RawHeaders,
  type ReplyInit,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import { checkHead, hasToken, withoutToken } from "./access.ts";
import { type Destination, destination, placeOf, plainPlace, tokenmanHeader } from "./destination.ts";
import { uuidv7 } from "./id.ts";
import type { Refusals, Refused } from "./refusals.ts";
import { type RouteMatch, sendError, serveRoute } from "./route-table.ts";
import type { Port, Serving } from "./serving.ts";

/** A request that was let in. */
export interface Admitted {
  readonly place: Destination;
  /** Without TokenMan's own token. */
  readonly headers: RawHeaders;
  /** The plugin's endpoint there; "method" where it takes other methods only. */
  readonly route: RouteMatch | "method" | undefined;
}

/** The door of one port: who may come in, and what those hear who may not. */
export class Door {
  readonly #port: Port["name"];
  readonly #refusals: Refusals;
  readonly #log: Logger;

  constructor(port: Port["name"], refusals: Refusals, log: Logger) {
    this.#port = port;
    this.#refusals = refusals;
    this.#log = log;
  }

  /** Throws TM_BAD_REQUEST, TM_HOST_REFUSED, TM_ORIGIN_REFUSED or TM_UNAUTHORIZED. */
  admit(message: IncomingMessage, serving: Serving): Admitted {
    const isProxy = this.#port === "proxy";
    const { rawHeaders: headers, url = "/" } = message;
    checkHead(headers, serving.access, isProxy ? "programs" : "own");
    const place = isProxy ? destination(url, tokenmanHeader(headers, "x-tokenman-project")) : plainPlace(url);
    const { routes, demandsToken } = serving[this.#port];
    const route = routes.match(message.method ?? "GET", place.path);
    const { token } = serving.access;
    if (token === undefined) return { place, headers, route };
    // Vendors' clients may bring the token as their vendor's key.
    const formats = isProxy ? serving.dialects.formats : NO_FORMATS;
    const isPublic = typeof route === "object" && route.route.public === true;
    if (demandsToken && !isPublic && !hasToken(headers, token, formats))
      throw new TokenmanError("TM_UNAUTHORIZED", SEND_TOKEN[this.#port]);
    return { place, headers: withoutToken(headers, token, formats), route };
  }

  /** Runs a plugin's endpoint. `expects`: the client waits for 100 Continue. */
  serve(
    match: RouteMatch,
    { path, project }: Destination,
    { generation }: Serving,
    message: IncomingMessage,
    response: ServerResponse,
    expects: boolean,
  ): void {
    if (expects) response.writeContinue();
    generation.lease();
    response.once("close", () => generation.release());
    const failed = (cause: unknown): void => this.#log.error({ err: cause, path }, "a route failed");
    void serveRoute(match, message, response, failed, project);
  }

  /** What is told where a path takes other methods only. */
  notAllowed(response: ServerResponse, method: string, path: string, serving: Serving): TokenmanError {
    response.setHeader("Allow", serving[this.#port].routes.allowed(path));
    return new TokenmanError("TM_METHOD_NOT_ALLOWED", `This path does not take ${method}.`);
  }

  /** Refuses what is no exchange: to a client of the proxy in the shape of the vendor whose path or marks it bears. */
  refuse(message: IncomingMessage, response: ServerResponse, serving: Serving, cause: unknown): void {
    const error =
      cause instanceof TokenmanError
        ? cause
        : new TokenmanError("TM_INTERNAL", "This request failed inside TokenMan; the log says why.");
    if (error !== cause) this.#log.error({ err: cause, port: this.#port }, "a request failed at the door");
    else if (!ANSWERS.has(error.code)) this.#refusals.add(this.#refused(message, error));
    if (this.#port === "proxy") {
      response.setHeader("Connection", "close");
      const id = uuidv7();
      const shaped = this.#shaped(message, serving, error, id);
      if (shaped === undefined) sendError(response, error);
      else sendShaped(response, shaped, id);
      return;
    }
    if (error.code === "TM_UNAUTHORIZED") response.setHeader("WWW-Authenticate", 'Bearer realm="TokenMan"');
    sendError(response, error);
  }

  #refused({ rawHeaders, socket }: IncomingMessage, { code }: TokenmanError): Refused {
    const remoteAddress = socket.remoteAddress ?? "";
    const found = AT_FAULT[code];
    if (found === undefined) return { port: this.#port, code, remoteAddress };
    const value = headerValue(rawHeaders, found)?.slice(0, LOGGED_CHARS);
    return { port: this.#port, code, remoteAddress, [found]: value };
  }

  /** Undefined where it bears no vendor's marks. Formats and dialects are plugins': an error must come out all the same. */
  #shaped(
    { url = "/", method = "GET", rawHeaders }: IncomingMessage,
    { dialects }: Serving,
    { code, status, message }: TokenmanError,
    id: string,
  ): ReplyInit | undefined {
    let format: Format | undefined;
    try {
      format = dialects.classify(method, placeOf(url).path, rawHeaders).format;
      return format?.errorReply({ code, status, message }, id);
    } catch (cause) {
      this.#log.error({ err: cause, format: format?.name }, "an error could not be worded as the vendor's");
      return undefined;
    }
  }
}

function sendShaped(response: ServerResponse, { status, headers = [], body }: ReplyInit, id: string): void {
  // An error's body is text at hand; were it ever a stream, there would be no exchange to send it in.
  const bytes = typeof body === "string" || Buffer.isBuffer(body) ? Buffer.from(body as string) : NO_BYTES;
  const length = String(bytes.length);
  response.writeHead(status, [...headers, "Content-Length", length, "X-Tokenman-Request-Id", id]);
  response.end(bytes);
}

const NO_BYTES = Buffer.alloc(0);
const NO_FORMATS: readonly Format[] = [];
/** These answer: nobody was kept out. */
const ANSWERS: ReadonlySet<TokenmanError["code"]> = new Set(["TM_NOT_FOUND", "TM_METHOD_NOT_ALLOWED"]);
/** The header that is logged, and how much of it. */
const AT_FAULT: Readonly<Partial<Record<TokenmanError["code"], "host" | "origin">>> = {
  TM_HOST_REFUSED: "host",
  TM_ORIGIN_REFUSED: "origin",
};
const LOGGED_CHARS = 100;
const SEND_TOKEN = {
  proxy:
    "TokenMan's own token is missing or wrong. Send it as X-Tokenman-Token, or as your client's API key.",
  dashboard: "Send TokenMan's own token: Authorization: Bearer TOKEN.",
} as const;

import type { IncomingMessage, ServerResponse } from "node:http";
import {
  type ErrorCode,
  headerValue,
  type InnerExchange,
  type InnerReply,
  type InnerRequest,
  type Logger,
  MAX_NESTED,
  type Outcome,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import { checkHead, hasToken, withoutToken } from "./access.ts";
import { Asker } from "./asker.ts";
import { Bag, type Held } from "./bag.ts";
import { drive } from "./driver.ts";
import { ExchangeState, tokenmanHeader } from "./exchange.ts";
import { DEFAULT_PROJECT } from "./generation/index.ts";
import { failureOf, outcomeOf } from "./outcome.ts";
import { refusalOf, refuseEarly } from "./refusal.ts";
import { contentCoding, isKnownCoding } from "./reply/codec.ts";
import { KernelReply } from "./reply/reply.ts";
import { announcesBody, destination, ReceivedRequest, readBody, tooLarge } from "./request.ts";
import { type ClientLink, respond } from "./respond.ts";
import { serveRoute } from "./route-table.ts";
import type { Serving } from "./serving.ts";
import { Upload } from "./upload.ts";
import type { Connections } from "./upstream/connections.ts";
import { type Launch, makeLaunch } from "./upstream/launch.ts";
import { relayedHeaders } from "./upstream/outgoing.ts";

/** The bound of a decoded copy where `max_body_size` sets none. */
const MAX_DECODED_BYTES = 256 * 1024 * 1024;
/** How long a client that has its reply may go on sending the rest of its request. */
const REST_MS = 5_000;

export interface IntakeHost {
  readonly connections: Connections;
  readonly log: Logger;
  serving(): Serving;
  /** Whether requests are refused, as this process is about to end. */
  draining(): boolean;
  /** Whether a connection is to end with the reply that is sent now. */
  closing(): boolean;
}

/** Takes requests of the proxy port from their head to their end. */
export class Intake {
  readonly #host: IntakeHost;
  readonly #active = new Bag<ExchangeState>();
  /** The bodies of exchanges that stream through unread. */
  readonly #uploads = new WeakMap<ExchangeState, Upload>();
  readonly #launch: Launch;
  #idle: (() => void) | undefined;

  constructor(host: IntakeHost) {
    this.#host = host;
    this.#launch = makeLaunch({
      connections: host.connections,
      informational: (exchange, status, headers) => relayInformation(exchange.link, status, headers),
      upload: (exchange) => this.#uploads.get(exchange)?.take(),
    });
  }
  get active(): number {
    return this.#active.size;
  }
  /** Resolves when no exchange is under way. */
  async whenIdle(): Promise<void> {
    if (this.#active.size === 0) return;
    await new Promise<void>((resolve) => {
      this.#idle = resolve;
    });
  }
  /** Breaks off what is still under way; each exchange settles as "failed". */
  abortAll(): void {
    for (const exchange of this.#active.values()) {
      this.#cutBy.set(exchange, "TM_SHUTTING_DOWN");
      exchange.link?.response.destroy();
      exchange.asker?.leave(new TokenmanError("TM_SHUTTING_DOWN"));
    }
  }
  readonly #cutBy = new WeakMap<ExchangeState, ErrorCode>();

  /** `expects` is true for a request that waits for 100 Continue. */
  handle(message: IncomingMessage, response: ServerResponse, expects = false): void {
    const serving = this.#host.serving();
    let headers: readonly string[] = message.rawHeaders;
    try {
      checkHead(headers, serving.access, "programs");
      const place = destination(message.url ?? "/", tokenmanHeader(headers, "x-tokenman-project"));
      const route = serving.proxyRoutes.match(message.method ?? "GET", place.path);
      const isPublic = typeof route === "object" && route.route.public === true;
      const { token } = serving.access;
      const formats = serving.dialects.formats;
      if (token !== undefined) {
        if (serving.demandToken.proxy && !isPublic && !hasToken(headers, token, formats)) {
          throw new TokenmanError(
            "TM_UNAUTHORIZED",
            "TokenMan's own token is missing or wrong. Send it as X-Tokenman-Token, or as your client's API key.",
          );
        }
        headers = withoutToken(headers, token, formats);
      }
      if (typeof route === "object") {
        if (expects) response.writeContinue();
        serving.generation.lease();
        response.once("close", () => serving.generation.release());
        const failed = (cause: unknown): void =>
          this.#host.log.error({ err: cause, path: place.path }, "a route failed");
        void serveRoute(route, message, response, failed, place.project);
        return;
      }
      const classified = serving.dialects.classify(message.method ?? "GET", place.path, headers);
      if (route === "method" && classified.dialect === undefined) {
        response.setHeader("Allow", serving.proxyRoutes.allowed(place.path));
        throw new TokenmanError("TM_METHOD_NOT_ALLOWED", `This path does not take ${message.method}.`);
      }
      const request = new ReceivedRequest(message, place, classified.path, headers);
      const project = place.project ?? DEFAULT_PROJECT;
      const home = serving.home(project);
      serving.generation.lease();
      const exchange = new ExchangeState({
        project,
        request,
        dialect: classified.dialect,
        format: classified.format,
        home,
      });
      void this.#run(exchange, request, serving, message, response, expects);
    } catch (cause) {
      refuseEarly(message, response, headers, serving, cause, this.#host.log);
    }
  }

  /** Begins an exchange for a plugin; see `HostInfo.exchange`. */
  exchange(asked: InnerRequest): InnerExchange {
    const { plugin, method = "POST", parent } = asked;
    const depth = (parent?.madeBy?.depth ?? 0) + 1;
    if (depth > MAX_NESTED)
      throw new TokenmanError("TM_INTERNAL", `exchanges nest ${depth} deep, the last one by ${plugin}`);
    const serving = this.#host.serving();
    const { access, dialects } = serving;
    const place = destination(asked.path, asked.project ?? parent?.project);
    const headers =
      access.token === undefined
        ? asked.headers
        : withoutToken(asked.headers, access.token, dialects.formats);
    const { dialect, format, path } = dialects.classify(method, place.path, headers);
    const socket = { remoteAddress: parent?.request.remoteAddress };
    const request = new ReceivedRequest({ method, socket }, place, path, headers);
    const project = place.project ?? DEFAULT_PROJECT;
    const home = serving.home(project);
    serving.generation.lease();
    const exchange = new ExchangeState({ project, request, dialect, format, home });
    exchange.madeBy = Object.freeze({ plugin, parent: parent?.id, depth });
    if (asked.session !== undefined) exchange.named(asked.session);
    const asker = new Asker(exchange);
    exchange.asker = asker;
    const reply = Promise.withResolvers<InnerReply>();
    // Whoever gives up may not look at it any more.
    reply.promise.catch(() => {});
    asker.onLeave(reply.reject);
    void this.#runInner(exchange, request, serving, asked.body, asker, reply);
    return { id: exchange.id, reply: reply.promise, abort: () => asker.leave() };
  }
  async #runInner(
    exchange: ExchangeState,
    request: ReceivedRequest,
    serving: Serving,
    body: Buffer,
    asker: Asker,
    asked: PromiseWithResolvers<InnerReply>,
  ): Promise<void> {
    const held = this.#active.add(exchange);
    let outcome: Outcome;
    try {
      exchange.home.pipeline.started(exchange);
      const reply = await plainReply(
        exchange,
        await this.#answer(exchange, request, serving, body, undefined),
      );
      const { status } = reply;
      const sending = asker.take(reply);
      const isHeard = !asker.left;
      asked.resolve({ status, headers: relayedHeaders(reply.finalHeaders()), body: asker });
      outcome = outcomeOf(exchange, reply, await sending, isHeard, this.#cutBy.get(exchange));
    } catch (cause) {
      this.#host.log.error({ err: cause, exchange: exchange.id }, "an exchange failed inside the kernel");
      const error = new TokenmanError("TM_INTERNAL", undefined, { cause });
      asked.reject(error);
      asker.leave(error);
      outcome = failureOf(exchange, cause);
    }
    await this.#settle(exchange, held, outcome);
  }

  async #run(
    exchange: ExchangeState,
    request: ReceivedRequest,
    serving: Serving,
    message: IncomingMessage,
    response: ServerResponse,
    expects: boolean,
  ): Promise<void> {
    const link: ClientLink = {
      response,
      socket: message.socket,
      legacy: message.httpVersion === "1.0",
      sender: undefined,
    };
    exchange.link = link;
    const held = this.#active.add(exchange);
    response.on("close", () => {
      if (!response.writableFinished) exchange.clientLeft();
      link.sender?.clientClosed();
    });
    let outcome: Outcome;
    try {
      exchange.home.pipeline.started(exchange);
      const reply = await this.#answer(
        exchange,
        request,
        serving,
        message,
        expects ? () => response.writeContinue() : undefined,
      );
      const unread = !message.complete && announcesBody(message);
      // The client must be able to send all of its request in order to come to its reply.
      if (unread) readRest(message, this.#uploads.get(exchange));
      const close = this.#host.closing() || (unread && (expects || reply.status === 408));
      const sent = await respond(exchange, reply, link, { writeTimeoutMs: serving.limits.writeMs, close });
      outcome = outcomeOf(exchange, reply, sent, response.headersSent, this.#cutBy.get(exchange));
      if (!message.complete && !message.destroyed) boundRest(message);
    } catch (cause) {
      this.#host.log.error({ err: cause, exchange: exchange.id }, "an exchange failed inside the kernel");
      response.destroy();
      outcome = failureOf(exchange, cause);
    }
    await this.#settle(exchange, held, outcome);
  }

  async #settle(exchange: ExchangeState, held: Held<ExchangeState>, outcome: Outcome): Promise<void> {
    this.#active.remove(held);
    if (this.#active.size === 0) this.#idle?.();
    await exchange.settle(outcome);
  }

  /** The reply to an exchange, after all hooks. */
  async #answer(
    exchange: ExchangeState,
    request: ReceivedRequest,
    serving: Serving,
    message: IncomingMessage | Buffer,
    ready: (() => void) | undefined,
  ): Promise<KernelReply> {
    const { pipeline } = exchange.home;
    const { limits } = serving;
    // What is a part of a request that may still end goes on with it.
    if (this.#host.draining() && exchange.madeBy?.parent === undefined)
      return KernelReply.refusal(exchange, {
        code: "TM_SHUTTING_DOWN",
        message: "TokenMan is shutting down.",
        headers: ["Retry-After", "1"],
      });
    let reply: KernelReply | undefined;
    try {
      if (Buffer.isBuffer(message)) {
        if (limits.maxBodyBytes > 0 && message.length > limits.maxBodyBytes)
          throw tooLarge(limits.maxBodyBytes);
        const decoding = request.take(message, limits.maxBodyBytes || MAX_DECODED_BYTES);
        if (decoding !== undefined) await decoding;
      } else if (exchange.dialect !== undefined || !announcesBody(message)) {
        const body = await readBody(
          message,
          { maxBytes: limits.maxBodyBytes, stallMs: limits.readMs },
          ready,
        );
        const decoding = request.take(body, limits.maxBodyBytes || MAX_DECODED_BYTES);
        if (decoding !== undefined) await decoding;
      } else {
        ready?.();
        this.#uploads.set(exchange, new Upload(message, limits.readMs));
      }
    } catch (cause) {
      reply = refusalOf(exchange, cause);
    }
    if (reply === undefined) {
      exchange.answeredAt = Number.POSITIVE_INFINITY;
      const early = pipeline.request(exchange);
      reply = early instanceof Promise ? await early : early;
    }
    if (reply === undefined) {
      try {
        reply = await drive(exchange, { policy: exchange.home.policy, launch: this.#launch });
      } catch (cause) {
        this.#host.log.error({ err: cause, exchange: exchange.id }, "an exchange could not be driven");
        reply = refusalOf(exchange, cause);
      }
    }
    const answered = pipeline.response(reply, exchange);
    return answered instanceof Promise ? await answered : answered;
  }
}

/** A reply whose body comes without a Content-Encoding, where that is known. */
async function plainReply(exchange: ExchangeState, reply: KernelReply): Promise<KernelReply> {
  const coding = contentCoding(headerValue(reply.headers, "content-encoding"));
  if (coding === undefined || !isKnownCoding(coding)) return reply;
  if (reply.streaming) {
    reply.mapEvents({ event: (event) => event });
    return reply;
  }
  try {
    reply.replaceBody(await reply.read());
    return reply;
  } catch (cause) {
    reply.discard();
    return refusalOf(exchange, cause);
  }
}

/** Reads and drops the rest of a body that nobody wants. */
function readRest(message: IncomingMessage, upload: Upload | undefined): void {
  message.on("error", () => {});
  // An upload that an attempt took is read by that, as long as its provider wants it.
  if (upload === undefined) message.resume();
  else upload.drop();
}
/** A client that has its reply and goes on sending may do so for a while, to have its connection for the next request. */
function boundRest(message: IncomingMessage): void {
  const { socket } = message;
  const bound = setTimeout(() => socket.destroy(), REST_MS);
  const stop = (): void => {
    clearTimeout(bound);
    socket.off("close", stop);
  };
  message.once("close", stop);
  // A message whose reply is out does not hear of the end of its connection.
  socket.once("close", stop);
}

/** 1xx replies go on to the client where it can take them; they never fail an exchange. */
function relayInformation(link: ClientLink | undefined, status: number, headers: readonly string[]): void {
  if (link === undefined || link.legacy || link.response.headersSent || status === 101) return;
  try {
    link.response.writeInformation(status, relayedHeaders(headers) as string[]);
  } catch {
    // A 1xx that cannot be written is dropped: the final reply is what counts.
  }
}

import type { IncomingMessage, ServerResponse } from "node:http";
import {
  type InnerExchange,
  type InnerRequest,
  type Logger,
  MAX_NESTED,
  type Outcome,
  type RawHeaders,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import { withoutToken } from "./access.ts";
import { Asker } from "./asker.ts";
import { Bag } from "./bag.ts";
import { ClientEnd } from "./client-end.ts";
import { type Destination, destination } from "./destination.ts";
import type { Classified } from "./dialect-table.ts";
import type { Door } from "./door.ts";
import { drive } from "./driver.ts";
import type { ExchangeEnd } from "./end.ts";
import { ExchangeState } from "./exchange.ts";
import { DEFAULT_PROJECT } from "./generation/index.ts";
import { failureOf, outcomeOf } from "./outcome.ts";
import { refusalOf } from "./refusal.ts";
import { KernelReply } from "./reply/reply.ts";
import { ReceivedRequest, type Sender } from "./request.ts";
import type { Serving } from "./serving.ts";
import type { Connections } from "./upstream/connections.ts";
import { type Launch, makeLaunch } from "./upstream/launch.ts";

export interface IntakeHost {
  readonly connections: Connections;
  readonly door: Door;
  readonly log: Logger;
  serving(): Serving;
  /** Whether requests are refused, as this process is about to end. */
  draining(): boolean;
  /** Whether a connection is to end with the reply that is sent now. */
  closing(): boolean;
}

/** Takes requests of the proxy port, and those that plugins make, from their head to their end. */
export class Intake {
  readonly #host: IntakeHost;
  readonly #active = new Bag<ExchangeState>();
  readonly #launch: Launch;
  #idle: (() => void) | undefined;

  constructor(host: IntakeHost) {
    this.#host = host;
    this.#launch = makeLaunch(host.connections);
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
      exchange.cutBy = "TM_SHUTTING_DOWN";
      exchange.end?.breakOff(new TokenmanError("TM_SHUTTING_DOWN"));
    }
  }

  /** `expects` is true for a request that waits for 100 Continue. */
  handle(message: IncomingMessage, response: ServerResponse, expects = false): void {
    const { door } = this.#host;
    const serving = this.#host.serving();
    try {
      const { place, headers, route } = door.admit(message, serving);
      if (typeof route === "object") {
        door.serve(route, place, serving, message, response, expects);
        return;
      }
      const { method = "GET" } = message;
      const classified = serving.dialects.classify(method, place.path, headers);
      if (route === "method" && classified.dialect === undefined)
        throw door.notAllowed(response, method, place.path, serving);
      const exchange = begin(serving, message, place, headers, classified);
      void this.#run(exchange, serving, new ClientEnd(message, response, expects, exchange));
    } catch (cause) {
      door.refuse(message, response, serving, cause);
    }
  }

  /** Begins an exchange for a plugin; see `HostInfo.exchange`. */
  exchange(asked: InnerRequest): InnerExchange {
    const { plugin, method = "POST", parent } = asked;
    const depth = (parent?.madeBy?.depth ?? 0) + 1;
    if (depth > MAX_NESTED)
      throw new TokenmanError("TM_INTERNAL", `exchanges nest ${depth} deep, the last one by ${plugin}`);
    const serving = this.#host.serving();
    const { dialects, access } = serving;
    const place = destination(asked.path, asked.project ?? parent?.project);
    const headers =
      access.token === undefined
        ? asked.headers
        : withoutToken(asked.headers, access.token, dialects.formats);
    const sender = { method, socket: { remoteAddress: parent?.request.remoteAddress } };
    const exchange = begin(serving, sender, place, headers, dialects.classify(method, place.path, headers));
    exchange.madeBy = Object.freeze({ plugin, parent: parent?.id, depth });
    if (asked.session !== undefined) exchange.named(asked.session);
    const asker = new Asker(exchange, asked.body);
    void this.#run(exchange, serving, asker);
    return { id: exchange.id, reply: asker.reply, abort: () => asker.leave() };
  }

  async #run(exchange: ExchangeState, serving: Serving, end: ExchangeEnd): Promise<void> {
    exchange.end = end;
    const held = this.#active.add(exchange);
    let outcome: Outcome;
    try {
      exchange.home.pipeline.started(exchange);
      const reply = await this.#answer(exchange, serving, end);
      const sent = await end.send(exchange, reply, serving.limits, this.#host.closing());
      outcome = outcomeOf(exchange, reply, sent);
    } catch (cause) {
      this.#host.log.error({ err: cause, exchange: exchange.id }, "an exchange failed inside the kernel");
      end.breakOff(new TokenmanError("TM_INTERNAL", undefined, { cause }));
      outcome = failureOf(exchange, cause);
    }
    this.#active.remove(held);
    if (this.#active.size === 0) this.#idle?.();
    await exchange.settle(outcome);
  }

  /** The reply to an exchange, after all hooks. */
  async #answer(exchange: ExchangeState, { limits }: Serving, end: ExchangeEnd): Promise<KernelReply> {
    const { pipeline } = exchange.home;
    // What is a part of a request that may still end goes on with it.
    if (this.#host.draining() && exchange.madeBy?.parent === undefined)
      return KernelReply.refusal(exchange, {
        code: "TM_SHUTTING_DOWN",
        message: "TokenMan is shutting down.",
        headers: ["Retry-After", "1"],
      });
    let reply: KernelReply | undefined;
    try {
      const body = end.body(exchange.dialect !== undefined, limits);
      if (body !== undefined) {
        const bytes = body instanceof Promise ? await body : body;
        const decoding = exchange.request.take(bytes, limits.decodedBytes);
        if (decoding !== undefined) await decoding;
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
        reply = await drive(exchange, this.#launch);
      } catch (cause) {
        this.#host.log.error({ err: cause, exchange: exchange.id }, "an exchange could not be driven");
        reply = refusalOf(exchange, cause);
      }
    }
    const answered = pipeline.response(reply, exchange);
    return answered instanceof Promise ? await answered : answered;
  }
}

/** Begins an exchange of a generation that it keeps until it is settled. */
export function begin(
  serving: Serving,
  sender: Sender,
  place: Destination,
  headers: RawHeaders,
  { dialect, format, path, sent }: Classified,
): ExchangeState {
  const project = place.project ?? DEFAULT_PROJECT;
  const home = serving.home(project);
  serving.generation.lease();
  const request = new ReceivedRequest(sender, place.target, path, sent, headers);
  return new ExchangeState({ project, request, dialect, format, home });
}

import { hash, randomBytes } from "node:crypto";
import type { ServerResponse } from "node:http";
import {
  type Dialect,
  encodeSse,
  type Format,
  type InnerExchange,
  type InnerRequest,
  type RawHeaders,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import { EventLog } from "./event-log.ts";
import { Reader } from "./reader.ts";
import { requestBody, type Template } from "./template.ts";
import { Turn, type TurnEnd } from "./turn.ts";

/** Why a session ended, as its readers are told. */
export type Ending = "deleted" | "expired" | "shutdown";

/** What a turn needs of the generation that serves when it begins. */
export interface TurnWorld {
  readonly dialect: Dialect;
  readonly format: Format;
  readonly maxBodyBytes: number;
  exchange(request: InnerRequest): InnerExchange;
}

export interface SessionParts {
  /** A hash of the creator's credential. */
  readonly owner: Buffer;
  readonly project: string | undefined;
  /** Those of the creator that go with each request. */
  readonly headers: RawHeaders;
  readonly template: Template;
  readonly replayBytes: number;
  /** Called once, when it has ended. */
  readonly ended: (session: Session) => void;
}

/** A conversation, and the events of its replies. Turns are added whole or not at all. */
export class Session {
  readonly id = `sess_${randomBytes(18).toString("base64url")}`;
  readonly owner: Buffer;
  readonly template: Template;
  /** What its exchanges call it. Not the id, which may be all that guards it: the ledger shows this. */
  readonly #name = hash("sha256", this.id, "base64url").slice(0, 22);
  readonly #parts: SessionParts;
  readonly #log: EventLog;
  readonly #readers = new Set<Reader>();
  #messages: readonly Buffer[];
  #turns = 0;
  #turn: Turn | undefined;
  #idleSinceMs = performance.now();
  /** How it is to end when its turn is over. */
  #ending: Ending | undefined;

  constructor(parts: SessionParts) {
    this.#parts = parts;
    this.owner = parts.owner;
    this.template = parts.template;
    this.#messages = parts.template.opening;
    this.#log = new EventLog(parts.replayBytes);
  }

  get busy(): boolean {
    return this.#turn !== undefined;
  }
  /** Number of the turn that began last; 0 before the first. */
  get turns(): number {
    return this.#turns;
  }
  get lastEventId(): number {
    return this.#log.last;
  }
  /** Whether nobody has used it for so long. */
  expired(ttlMs: number): boolean {
    if (ttlMs === 0 || this.busy || this.#readers.size > 0) return false;
    return performance.now() - this.#idleSinceMs >= ttlMs;
  }

  /**
   * Begins a turn with these messages: the exchange's id. Throws TM_SESSION_BUSY while a reply is on its way,
   * TM_BAD_REQUEST where there is nothing to send, and TM_BODY_TOO_LARGE where the conversation is over `server.max_body_size`.
   */
  send(messages: readonly Buffer[], world: TurnWorld): string {
    if (this.busy) throw new TokenmanError("TM_SESSION_BUSY", "The session's reply is still on its way.");
    const asked = [...this.#messages, ...messages];
    if (asked.length === 0)
      throw new TokenmanError("TM_BAD_REQUEST", "There is no conversation yet that could be continued.");
    const body = requestBody(this.template, asked);
    if (world.maxBodyBytes > 0 && body.length > world.maxBodyBytes) {
      throw new TokenmanError(
        "TM_BODY_TOO_LARGE",
        `The conversation is over server.max_body_size (${world.maxBodyBytes} bytes).`,
      );
    }
    const { project, headers, template } = this.#parts;
    const exchange = world.exchange({
      plugin: "stream-sessions",
      path: template.wire.path,
      headers,
      body,
      project,
      session: this.#name,
    });
    const turn = new Turn({
      exchange,
      log: this.#log,
      dialect: world.dialect,
      format: world.format,
      assembler: template.wire.assembler(),
    });
    this.#turn = turn;
    this.#turns++;
    this.#tell("tokenman.turn.started", { turn: this.#turns, request_id: exchange.id });
    void turn.run().then((end) => this.#ended(turn, asked, end));
    return exchange.id;
  }
  #ended(turn: Turn, asked: readonly Buffer[], end: TurnEnd): void {
    const facts = { turn: this.#turns, request_id: turn.id };
    this.#turn = undefined;
    this.#idleSinceMs = performance.now();
    if (end.kind === "complete") {
      this.#messages = [...asked, ...end.added];
      this.#tell("tokenman.turn.completed", { ...facts, messages: this.#messages.length });
    } else {
      const code = end.kind === "failed" ? end.code : "interrupted";
      const { status, retryAfter } = end.kind === "failed" ? end : {};
      const why = { code, status, retry_after: retryAfter };
      this.#tell("tokenman.turn.failed", { ...facts, ...why, messages: this.#messages.length });
    }
    if (this.#ending !== undefined) this.end(this.#ending);
    else for (const reader of this.#readers) reader.advance();
  }
  /** Calls the turn off, if there is one: whether there was. */
  interrupt(): boolean {
    this.#turn?.interrupt();
    return this.busy;
  }

  /** Streams its events from behind number `after` on. `cancelUnread`: the turn is called off when the last one leaves. */
  read(response: ServerResponse, after: number, cancelUnread: boolean): Reader {
    let reader: Reader | undefined;
    const left = (): void => {
      if (reader !== undefined) this.#readers.delete(reader);
      this.#idleSinceMs = performance.now();
      if (cancelUnread && this.#readers.size === 0) this.#turn?.interrupt();
    };
    reader = new Reader(this.#log, response, { after, isIdle: () => !this.busy, left });
    this.#readers.add(reader);
    return reader;
  }

  /** Ends it: its turn is called off, and its readers are told. Once. */
  end(ending: Ending): void {
    if (this.#log.closed) return;
    this.#tell("tokenman.closed", { reason: ending });
    this.#turn?.interrupt();
    this.#log.close();
    this.#parts.ended(this);
  }
  /** Ends it when its reply has come to its end. */
  endWhenIdle(ending: Ending): void {
    if (this.busy) this.#ending = ending;
    else this.end(ending);
  }

  #tell(event: string, facts: object): void {
    this.#log.push(encodeSse({ event, data: JSON.stringify(facts) }));
  }
}

import type { AttemptHead, EventVerdict } from "@tokenman/plugin-sdk";
import type { AttemptState } from "./attempt.ts";
import type { ExchangeState } from "./exchange.ts";
import { peekErrorBody, peekFirstEvent } from "./reply/peek.ts";
import type { KernelReply } from "./reply/reply.ts";
import type { PushSource } from "./reply/source.ts";

/**
 * How long a stream's head waits for its first event. What refuses a request inside a 200 has not begun to generate, so
 * it comes with the head; whoever is silent behind a head is at work, and the client may know.
 */
const FIRST_EVENT_MS = 1_000;

/** Decides about replies that came. */
export interface Judge {
  /** As much of it is here as there will be before it is decided. */
  judge(held: HeldReply, head: AttemptHead): void;
  /** It has waited for long enough. */
  late(): void;
}

/** A reply that came, held back until as much of it is here as it is judged by. */
export class HeldReply {
  readonly attempt: AttemptState;
  readonly reply: KernelReply;
  /** It may go on to the client unjudged. */
  isLate = false;
  readonly #judge: Judge;
  /** Ends the wait for a first event with a verdict by the head; that for a body, without one. */
  #judgeNow: (() => void) | undefined;
  #leaveBody: (() => void) | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(attempt: AttemptState, reply: KernelReply, judge: Judge) {
    this.attempt = attempt;
    this.reply = reply;
    this.#judge = judge;
  }

  /** Waits for an error's body. */
  awaitBody(source: PushSource | undefined): void {
    this.#leaveBody = peekErrorBody(this.reply, source ?? this.reply.hold(), (body) =>
      this.judge(undefined, body),
    );
  }
  /** Waits for a stream's first event. */
  awaitEvent(exchange: ExchangeState, source: PushSource | undefined): void {
    let isThere = false;
    this.#judgeNow = peekFirstEvent(exchange, this.reply, source ?? this.reply.hold(), (event) => {
      isThere = true;
      this.judge(event);
    });
    if (isThere) return;
    this.#timer = setTimeout(() => {
      this.isLate = true;
      this.#judge.late();
    }, FIRST_EVENT_MS);
  }
  /** It is judged by its head alone, whatever it waits for. */
  release(): void {
    this.#judgeNow?.();
  }
  /** It is waited for no longer. */
  forget(): void {
    clearTimeout(this.#timer);
    this.#leaveBody?.();
  }
  /** Nobody wants it: another one is the client's. */
  drop(): void {
    this.forget();
    this.reply.discard();
  }

  judge(firstEvent?: EventVerdict, errorBody?: Buffer): void {
    this.forget();
    const { status, headers } = this.reply;
    this.#judge.judge(this, { status, headers, firstEvent, errorBody });
  }
}

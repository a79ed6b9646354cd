import {
  type BudgetWindow,
  type Exchange,
  type Ledger,
  type Logger,
  type ReplyInit,
  type ReserveResult,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import type { Alerts } from "./alerts.ts";
import type { Books } from "./books.ts";
import type { Calendar } from "./calendar.ts";
import { type Limit, windowOf } from "./limits.ts";
import { exceeded, unavailable } from "./refusal.ts";

/** One reservation, from the moment at which it is asked for. */
export interface Hold {
  readonly id: string;
  readonly nanoUsd: number;
  readonly windows: readonly BudgetWindow[];
  /** Why the exchange has to be refused; undefined once the reservation is committed. Never rejects. */
  readonly refusal: Promise<ReplyInit | undefined>;
  settled: boolean;
}

/** Reservations without a price must not be refused: the limit that the ledger is told is out of reach. */
const NO_LIMIT = Number.MAX_SAFE_INTEGER;
/** How long a request waits for the ledger. */
const LEDGER_MS = 5_000;

export interface ReservationParts {
  readonly ledger: Ledger;
  readonly calendar: Calendar;
  readonly books: Books;
  readonly alerts: Alerts;
  readonly log: Logger;
}

/** Asks the ledger for room, tells it what became of it, and has people told. */
export class Reservations {
  readonly #parts: ReservationParts;
  /** Percentages. */
  readonly #thresholds: readonly number[];

  constructor(thresholds: readonly number[], parts: ReservationParts) {
    this.#thresholds = thresholds;
    this.#parts = parts;
  }

  /** A reservation is made once for each `id`, whoever asks how often. */
  reserve(exchange: Exchange, id: string, nanoUsd: number, limits: readonly Limit[]): Hold {
    const { ledger, calendar } = this.#parts;
    const at = Date.now();
    const windows = limits.map((limit) => windowOf(limit, exchange.project, calendar, at));
    const asked = nanoUsd === 0 ? windows.map((window) => ({ ...window, limitNanoUsd: NO_LIMIT })) : windows;
    const answer = this.#inTime(
      id,
      ledger.reserve({ id, exchangeId: exchange.id, at, nanoUsd, windows: asked }),
    );
    const refusal = answer.then(
      (result) => this.#answered(exchange, windows, nanoUsd, result, at),
      (cause: unknown) => {
        this.#parts.log.error(
          { err: cause, exchange: exchange.id },
          "a reservation could not be written: the request is refused",
        );
        return unavailable(exchange);
      },
    );
    return { id, nanoUsd, windows, refusal, settled: false };
  }

  /** Resolves when the ledger has it, or has failed to: then it is tried again later. Never rejects. */
  async settle(hold: Hold, spentNanoUsd: number): Promise<void> {
    if (hold.settled) return;
    hold.settled = true;
    // However long the reservation takes: an exchange may end before it is through.
    if ((await hold.refusal) !== undefined) return;
    const { ledger, books, log } = this.#parts;
    const at = Date.now();
    const done = (): void => this.#done(hold, spentNanoUsd);
    try {
      await ledger.settle(hold.id, spentNanoUsd, at);
    } catch (cause) {
      // Until it is taken, the reservation stands: too much is counted rather than too little.
      books.unsettled.set(hold.id, { nanoUsd: spentNanoUsd, at, done });
      log.warn({ err: cause, reservation: hold.id }, "a settlement could not be written; it is tried again");
      return;
    }
    done();
  }

  #done(hold: Hold, spentNanoUsd: number): void {
    const { books, alerts } = this.#parts;
    for (const window of hold.windows) {
      const percent = books.settled(window, hold.nanoUsd, spentNanoUsd, this.#thresholds);
      if (percent !== undefined) alerts.passed(window, percent, books.spentIn(window));
    }
  }

  /** A ledger that answers too late has not answered: what it grants then is given back. */
  #inTime(id: string, answer: Promise<ReserveResult>): Promise<ReserveResult> {
    return new Promise((resolve, reject) => {
      let isLate = false;
      const timer = setTimeout(() => {
        isLate = true;
        reject(new TokenmanError("TM_LEDGER_UNAVAILABLE", `no answer in ${LEDGER_MS} ms`));
      }, LEDGER_MS);
      answer.then(
        (result) => {
          clearTimeout(timer);
          if (isLate && result.ok)
            this.#parts.books.unsettled.set(id, { nanoUsd: 0, at: Date.now(), done() {} });
          resolve(result);
        },
        (cause: unknown) => {
          clearTimeout(timer);
          reject(cause);
        },
      );
    });
  }
  #answered(
    exchange: Exchange,
    windows: readonly BudgetWindow[],
    nanoUsd: number,
    result: ReserveResult,
    now: number,
  ): ReplyInit | undefined {
    const { books, alerts } = this.#parts;
    if (!result.ok) {
      const { window, usedNanoUsd } = result;
      const first = books.refused(window, usedNanoUsd, this.#thresholds);
      const reserved = Math.min(books.reservedIn(window), usedNanoUsd);
      if (first) alerts.refused(window, usedNanoUsd - reserved);
      return exceeded(exchange, window, { spent: usedNanoUsd - reserved, reserved, now });
    }
    for (const [index, window] of windows.entries()) {
      const percent = books.reserved(window, nanoUsd, result.usedNanoUsd[index] ?? 0, this.#thresholds);
      if (percent !== undefined) alerts.passed(window, percent, books.spentIn(window));
    }
    return undefined;
  }
}

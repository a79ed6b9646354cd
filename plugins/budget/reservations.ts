import {
  type BudgetWindow,
  type Calendar,
  type Exchange,
  type Ledger,
  type Logger,
  type ReplyInit,
  type ReserveResult,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import type { Alerts } from "./alerts.ts";
import { type Books, keyOf, type Tally } from "./books.ts";
import { Hold, Waiting, type WindowSet } from "./holds.ts";
import { type Limit, windowOf } from "./limits.ts";
import { exceeded, unavailable } from "./refusal.ts";

/** Out of reach. */
const NO_LIMIT = Number.MAX_SAFE_INTEGER;
/** How long a request waits for the ledger. */
const LEDGER_MS = 5_000;
/** How many projects' windows are remembered: projects are named by clients. */
const MAX_SETS = 1_000;

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
  /** By limits, and by project where that makes a difference. */
  readonly #sets = new WeakMap<readonly Limit[], Map<string, WindowSet>>();
  readonly #waiting: Waiting;

  constructor(thresholds: readonly number[], parts: ReservationParts) {
    this.#thresholds = thresholds;
    this.#parts = parts;
    this.#waiting = new Waiting((hold) =>
      this.#unavailable(hold, new TokenmanError("TM_LEDGER_UNAVAILABLE", `no answer in ${LEDGER_MS} ms`)),
    );
  }

  /** The windows of limits at this moment. Of the same array of limits they are remembered. */
  windows(limits: readonly Limit[], project: string): WindowSet {
    let sets = this.#sets.get(limits);
    if (sets === undefined) {
      sets = new Map();
      this.#sets.set(limits, sets);
    }
    const now = Date.now();
    const key = limits.some(({ ofProject }) => ofProject) ? project : "";
    const known = sets.get(key);
    if (known !== undefined && now >= known.from && now < known.to) return known;
    const { calendar, books } = this.#parts;
    const windows = limits.map((limit) => windowOf(limit, project, calendar, now));
    const set: WindowSet = {
      windows,
      unlimited: windows.map(withoutLimit),
      tallies: windows.map((window) => books.tally(window)),
      from: Math.max(...windows.map(({ from }) => from)),
      to: Math.min(...windows.map(({ to }) => to)),
    };
    if (sets.size >= MAX_SETS) sets.clear();
    sets.set(key, set);
    return set;
  }

  /** A reservation is made once for each `id`, whoever asks how often. `isBound`: it is more than it can cost. */
  reserve(exchange: Exchange, id: string, nanoUsd: number, set: WindowSet, isBound: boolean): Hold {
    const hold = new Hold(exchange, id, nanoUsd, set, isBound, performance.now() + LEDGER_MS);
    const at = Date.now();
    const windows = nanoUsd === 0 ? set.unlimited : set.windows;
    for (const tally of set.tallies) tally.asks(nanoUsd, isBound);
    this.#waiting.add(hold);
    this.#parts.ledger.reserve({ id, exchangeId: exchange.id, at, nanoUsd, windows }).then(
      (result) => this.#answered(hold, result, at),
      (cause: unknown) => this.#unavailable(hold, cause),
    );
    return hold;
  }

  /**
   * What it did cost takes the reservation's place; the ledger writes it when it can. Waits only for a reservation that
   * is not through yet. Never rejects.
   */
  settle(hold: Hold, spentNanoUsd: number): void | Promise<unknown> {
    if (hold.spent !== undefined) return;
    hold.spent = spentNanoUsd;
    if (hold.state === "asked") return hold.refusal;
    if (hold.state === "granted") this.#settle(hold, spentNanoUsd);
  }

  #settle(hold: Hold, spentNanoUsd: number): void {
    const { ledger, books, log } = this.#parts;
    const { id, nanoUsd } = hold;
    const at = Date.now();
    this.#settled(hold, spentNanoUsd);
    ledger.settle(id, spentNanoUsd, at).catch((cause: unknown) => {
      // Until it is taken, the reservation stands: too much is counted rather than too little.
      for (const tally of hold.set.tallies) tally.reopened(nanoUsd, spentNanoUsd, hold.isBound);
      books.unsettled.set(id, { nanoUsd: spentNanoUsd, at, done: () => this.#settled(hold, spentNanoUsd) });
      log.warn({ err: cause, reservation: id }, "a settlement could not be written; it is tried again");
    });
  }
  #settled({ set, nanoUsd, isBound }: Hold, spentNanoUsd: number): void {
    for (const tally of set.tallies)
      this.#alert(tally, tally.settled(nanoUsd, spentNanoUsd, isBound, this.#thresholds));
  }
  #alert(tally: Tally, percent: number | undefined): void {
    if (percent !== undefined) this.#parts.alerts.passed(tally.window, percent, tally.spent);
  }

  #answered(hold: Hold, result: ReserveResult, now: number): void {
    const { set, nanoUsd, isBound, exchange } = hold;
    // A ledger that answers too late has not answered: what it grants then is given back.
    if (hold.state !== "asked") {
      if (result.ok) this.#parts.books.unsettled.set(hold.id, { nanoUsd: 0, at: Date.now(), done() {} });
      return;
    }
    if (!result.ok) {
      for (const tally of set.tallies) tally.failed(nanoUsd, isBound);
      hold.refuse(this.#exceeded(exchange!, hold, result, now));
    } else {
      hold.grant();
      for (const [index, tally] of set.tallies.entries())
        this.#alert(tally, tally.granted(nanoUsd, result.usedNanoUsd[index] ?? 0, this.#thresholds));
      // The exchange ended first.
      if (hold.spent !== undefined) this.#settle(hold, hold.spent);
    }
    this.#waiting.answered();
  }
  #exceeded(
    exchange: Exchange,
    { set, isBound }: Hold,
    { window, usedNanoUsd }: Extract<ReserveResult, { readonly ok: false }>,
    now: number,
  ): ReplyInit {
    const { books, alerts } = this.#parts;
    const tally = set.tallies.find(({ window: own }) => keyOf(own) === keyOf(window)) ?? books.tally(window);
    // A bound that finds no room says nothing yet: it is counted, and asked for again.
    const first = tally.refused(usedNanoUsd, isBound, this.#thresholds);
    const reserved = Math.min(tally.reserved, usedNanoUsd);
    if (first) alerts.refused(window, usedNanoUsd - reserved);
    return exceeded(exchange, window, { spent: usedNanoUsd - reserved, reserved, now });
  }
  #unavailable(hold: Hold, cause: unknown): void {
    const { exchange, set, nanoUsd, isBound } = hold;
    if (exchange === undefined) return;
    for (const tally of set.tallies) tally.failed(nanoUsd, isBound);
    this.#parts.log.error(
      { err: cause, exchange: exchange.id },
      "a reservation could not be written: the request is refused",
    );
    hold.refuse(unavailable(exchange));
    this.#waiting.answered();
  }
}

function withoutLimit(window: BudgetWindow): BudgetWindow {
  return { ...window, limitNanoUsd: NO_LIMIT };
}

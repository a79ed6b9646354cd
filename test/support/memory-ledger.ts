import {
  type BudgetWindow,
  type Ledger,
  type LedgerBegin,
  type LedgerEnd,
  type LedgerEvent,
  type Reservation,
  type ReserveResult,
  TokenmanError,
} from "@tokenman/plugin-sdk";

interface Held {
  readonly reservation: Reservation;
  readonly result: Extract<ReserveResult, { readonly ok: true }>;
  spent: number | undefined;
}

/**
 * The money side of the service Ledger, kept in memory with the same promises: all windows or none, answers by id, a
 * settlement once, a new window begins with what was recorded before. Its queries reject.
 */
export class MemoryLedger implements Ledger {
  readonly begun: LedgerBegin[] = [];
  readonly ended: LedgerEnd[] = [];
  readonly reservations = new Map<string, Held>();
  /** Set: nothing can be committed. */
  failing: string | undefined;
  /** What commits wait for. */
  commit: Promise<void> = Promise.resolve();
  readonly #windows = new Map<string, number>();
  readonly #refused = new Map<string, ReserveResult>();
  readonly #watchers = new Set<(event: LedgerEvent) => void>();
  /** Commits come one after the other, in the order in which they were asked for. */
  #queue: Promise<unknown> = Promise.resolve();

  get state() {
    return { lost: 0, waiting: 0, failing: this.failing };
  }
  begin(row: LedgerBegin): undefined {
    this.begun.push(row);
    for (const watch of this.#watchers) watch({ kind: "begin", row });
  }
  end(row: LedgerEnd): void {
    if (this.ended.some(({ exchangeId }) => exchangeId === row.exchangeId)) return;
    this.ended.push(row);
    for (const watch of this.#watchers) watch({ kind: "end", row });
  }
  watch(watcher: (event: LedgerEvent) => void): () => void {
    const own = (event: LedgerEvent): void => watcher(event);
    this.#watchers.add(own);
    return () => void this.#watchers.delete(own);
  }

  trial(): void {}
  reserve(reservation: Reservation): Promise<ReserveResult> {
    return this.#committed(() => this.#reserve(reservation));
  }
  settle(id: string, spentNanoUsd: number, _at: number): Promise<void> {
    return this.#committed(() => {
      const held = this.reservations.get(id);
      if (held === undefined || held.spent !== undefined) return;
      held.spent = Math.max(0, Math.round(spentNanoUsd));
      const change = held.spent - held.reservation.nanoUsd;
      for (const window of held.reservation.windows)
        this.#windows.set(keyOf(window), Math.max(0, this.#usedIn(window) + change));
    });
  }
  used(windows: readonly BudgetWindow[]): Promise<readonly number[]> {
    return this.#committed(() => windows.map((window) => this.#usedIn(window)));
  }
  async flush(): Promise<void> {
    await this.#queue;
  }

  page = noQueries;
  request = noQueries;
  totals = noQueries;
  history = noQueries;
  between = noQueries;
  groups = noQueries;
  savings = noQueries;
  read = noQueries;

  #committed<T>(work: () => T): Promise<T> {
    const { commit } = this;
    const done = this.#queue.then(async () => {
      await commit;
      if (this.failing !== undefined) throw new TokenmanError("TM_LEDGER_UNAVAILABLE", this.failing);
      return work();
    });
    this.#queue = done.catch(() => {});
    return done;
  }
  #reserve(reservation: Reservation): ReserveResult {
    const { id, nanoUsd, windows } = reservation;
    const known = this.reservations.get(id)?.result ?? this.#refused.get(id);
    if (known !== undefined) return known;
    const used = windows.map((window) => this.#usedIn(window));
    const full = windows.findIndex(({ limitNanoUsd }, index) => used[index]! + nanoUsd > limitNanoUsd);
    if (full >= 0) {
      const refusal = { ok: false, window: windows[full]!, usedNanoUsd: used[full]! } as const;
      this.#refused.set(id, refusal);
      return refusal;
    }
    const usedNanoUsd = used.map((before) => before + nanoUsd);
    for (const [index, window] of windows.entries()) this.#windows.set(keyOf(window), usedNanoUsd[index]!);
    const result = { ok: true, usedNanoUsd } as const;
    this.reservations.set(id, { reservation, result, spent: undefined });
    return result;
  }
  #usedIn(window: BudgetWindow): number {
    const key = keyOf(window);
    const known = this.#windows.get(key);
    if (known !== undefined) return known;
    const past = this.#past(window);
    this.#windows.set(key, past);
    return past;
  }
  #past({ scope, from, to }: BudgetWindow): number {
    const [kind = "", name] = scope.split(/:(.*)/s);
    let sum = 0;
    for (const end of this.ended) {
      const begin = this.begun.find(({ exchangeId }) => exchangeId === end.exchangeId);
      if (begin === undefined || begin.at < from || begin.at >= to) continue;
      for (const attempt of end.attempts) {
        const values: Readonly<Record<string, string | undefined>> = {
          project: begin.project,
          provider: attempt.provider,
          model: attempt.model,
        };
        if (kind === "total" || (name !== undefined && values[kind] === name))
          sum += attempt.cost?.total ?? 0;
      }
    }
    return sum;
  }
}

function keyOf({ scope, period, from }: BudgetWindow): string {
  return `${scope} ${period} ${from}`;
}

function noQueries(): Promise<never> {
  return Promise.reject(new TokenmanError("TM_LEDGER_QUERY", "this ledger in memory answers no questions"));
}

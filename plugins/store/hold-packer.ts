import type { BudgetWindow, LedgerBegin, Reservation, ReserveResult } from "@tokenman/plugin-sdk";
import { GRANTED, HOLD, type HoldAnswers, type HoldBatch } from "./hold-cells.ts";
import type { RowPacker } from "./row-packer.ts";

/** One that waits for its answer. */
interface Asking {
  readonly reservation: Reservation;
  readonly begin: LedgerBegin | undefined;
  resolve(result: ReserveResult): void;
  reject(error: Error): void;
}

/** Reservations that are with the writer. */
export class HoldsUnderway {
  readonly #asking: readonly Asking[];
  timer: NodeJS.Timeout | undefined;

  constructor(asking: readonly Asking[]) {
    this.#asking = asking;
  }

  answer(answers: HoldAnswers): void {
    this.#each(answers, ({ resolve }, result) => resolve(result));
  }
  reject(error: Error): void {
    for (const { reject } of this.#asking) reject(error);
  }
  /** The ids of those that are granted. */
  granted(answers: HoldAnswers): string[] {
    const ids: string[] = [];
    this.#each(answers, ({ reservation }, { ok }) => {
      if (ok) ids.push(reservation.id);
    });
    return ids;
  }

  #each(answers: HoldAnswers, tell: (asking: Asking, result: ReserveResult) => void): void {
    let next = 0;
    for (const asking of this.#asking) {
      const { windows } = asking.reservation;
      if (answers[next++] === GRANTED) {
        const usedNanoUsd = answers.slice(next, next + windows.length);
        next += windows.length;
        tell(asking, { ok: true, usedNanoUsd });
      } else {
        const window = windows[answers[next++]!]!;
        tell(asking, { ok: false, window, usedNanoUsd: answers[next++]! });
      }
    }
  }
}

/** Gathers reservations until they are handed over. */
export class HoldPacker {
  #asking: Asking[] = [];

  get count(): number {
    return this.#asking.length;
  }

  /** `begin`: the beginning of its exchange's row, where that is not on its way yet. */
  add(reservation: Reservation, begin: LedgerBegin | undefined): Promise<ReserveResult> {
    return new Promise((resolve, reject) => {
      this.#asking.push({ reservation, begin, resolve, reject });
    });
  }

  rejectAll(error: Error): void {
    const asking = this.#asking;
    this.#asking = [];
    for (const { reject } of asking) reject(error);
  }

  /** All that are here, to hand over. */
  take(call: number, rows: RowPacker): { readonly batch: HoldBatch; readonly underway: HoldsUnderway } {
    const asking = this.#asking;
    this.#asking = [];
    const ids: string[] = [];
    const sets: (readonly BudgetWindow[])[] = [];
    const cells = new Float64Array(asking.length * HOLD.LENGTH);
    let at = 0;
    for (const { reservation, begin } of asking) {
      const { id, windows, nanoUsd } = reservation;
      ids.push(id);
      // Mostly all have the same.
      const known = sets.lastIndexOf(windows);
      cells[at + HOLD.SET] = known < 0 ? sets.push(windows) - 1 : known;
      cells[at + HOLD.AMOUNT] = nanoUsd;
      cells[at + HOLD.AT] = reservation.at;
      if (begin === undefined) cells.fill(Number.NaN, at + HOLD.BEGIN, at + HOLD.LENGTH);
      else rows.packBegin(begin, cells, at + HOLD.BEGIN, 0);
      at += HOLD.LENGTH;
    }
    return { batch: { call, ids, sets, cells, names: rows.newNames() }, underway: new HoldsUnderway(asking) };
  }
}

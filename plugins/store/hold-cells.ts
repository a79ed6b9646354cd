import type { BudgetWindow } from "@tokenman/plugin-sdk";
import { BEGIN, type NewNames } from "./row-cells.ts";

/**
 * Reservations on their way to the writer, as rows travel (row-cells.ts): numbers, one reservation after another. Each
 * brings the beginning of its exchange's row along, where that has not been handed over yet; NaN where it has.
 */
export const HOLD = {
  /** Its windows: a place among the batch's sets. */
  SET: 0,
  /** Nano-dollars. */
  AMOUNT: 1,
  /** When it was asked for, milliseconds since the epoch. */
  AT: 2,
  BEGIN: 3,
  LENGTH: 3 + BEGIN.LENGTH,
} as const;

/** Reservations that share a commit. */
export interface HoldBatch {
  readonly call: number;
  readonly ids: readonly string[];
  readonly sets: readonly (readonly BudgetWindow[])[];
  readonly cells: Float64Array<ArrayBuffer>;
  readonly names: NewNames;
}

/** What is settled with a batch of rows. */
export interface SettledBatch {
  readonly call: number;
  readonly ids: readonly string[];
  /** Nano-dollars. */
  readonly spent: readonly number[];
}

/**
 * The answers to a batch, in its order: for one that is granted `GRANTED` and what is used of each of its windows, for one
 * that is refused `REFUSED`, the place of the window that is full, and what is used of it.
 */
export type HoldAnswers = readonly number[];
export const GRANTED = 1;
export const REFUSED = 0;

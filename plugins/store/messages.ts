import type { BudgetWindow, LedgerTrial } from "@tokenman/plugin-sdk";
import type { DecisionRow } from "./decision-rows.ts";
import type { WindowKey } from "./journal-lines.ts";
import type { Retention } from "./prune.ts";
import type { RowBatch } from "./row-cells.ts";

/** What a reload may change. */
export interface Tuning {
  readonly synchronous: "normal" | "full";
  readonly retention: Retention;
}

/** What the writer is started with. */
export interface WriterSettings extends Tuning {
  readonly file: string;
  readonly bootId: string;
}

/** One thing to write that is no exchange's row, or to be told. Those with a `call` are answered. */
export type Operation =
  /** Room in windows for a process to give away; answered by an {@link AllowanceAnswer} each. */
  | {
      readonly kind: "allow";
      readonly call: number;
      readonly holder: string;
      readonly journal: number;
      readonly asks: readonly AllowanceAsk[];
    }
  /** So much of it is spent, and a journal that begins with that file knows the rest. */
  | {
      readonly kind: "fold";
      readonly call: number;
      readonly holder: string;
      readonly journal: number;
      readonly spent: readonly WindowAmount[];
    }
  | { readonly kind: "leave"; readonly call: number; readonly holder: string }
  /** Of a reservation that an earlier process left. */
  | {
      readonly kind: "settle";
      readonly call: number;
      readonly id: string;
      readonly spent: number;
      readonly at: number;
    }
  | {
      readonly kind: "used";
      readonly call: number;
      readonly holder: string;
      readonly windows: readonly BudgetWindow[];
    }
  | { readonly kind: "trial"; readonly trial: LedgerTrial }
  | { readonly kind: "decide"; readonly decision: DecisionRow }
  /** The decisions that were last used. */
  | { readonly kind: "recall"; readonly call: number }
  | { readonly kind: "decided"; readonly call: number; readonly book: string; readonly key: string }
  | { readonly kind: "flush"; readonly call: number };

export interface WindowAmount extends WindowKey {
  readonly nanoUsd: number;
}
/** Nano-dollars. */
export interface AllowanceAsk {
  readonly window: BudgetWindow;
  /** What the asker has of the window. */
  readonly leased: number;
  /** What it needs beyond that, at least. */
  readonly want: number;
}
export interface AllowanceAnswer {
  /** Of the window, by all, with what is granted. */
  readonly used: number;
  readonly granted: number;
}

export interface Batch {
  readonly rows: RowBatch | undefined;
  /** Texts of JSON, each an {@link Operation}: to copy a text between threads is cheaper than to copy objects. */
  readonly operations: readonly string[];
  readonly bodies: readonly {
    readonly request?: Uint8Array;
    readonly response?: Uint8Array;
    readonly truncated: boolean;
  }[];
}

export type ToWriter =
  | { readonly kind: "batch"; readonly batch: Batch }
  | { readonly kind: "tune"; readonly tuning: Tuning }
  /** Write what there is, say goodbye, and end. */
  | { readonly kind: "close" };

export type FromWriter =
  | { readonly kind: "open"; readonly error?: WireError }
  | { readonly kind: "answer"; readonly call: number; readonly value?: unknown; readonly error?: WireError }
  /** So many rows were written, and so many given up. */
  | { readonly kind: "done"; readonly written: number; readonly lost: number }
  | { readonly kind: "state"; readonly failing: string | undefined }
  | {
      readonly kind: "log";
      readonly level: "info" | "warn" | "error";
      readonly facts: object;
      readonly message: string;
    }
  | { readonly kind: "closed" };

/** An error on its way between threads. */
export interface WireError {
  readonly code: string;
  readonly message: string;
}

import type { Usage } from "./dialect.ts";
import type { AttemptResult, Outcome } from "./exchange.ts";
import type { CostByKind } from "./pricing.ts";
import { type ServiceToken, service } from "./service.ts";

/** An exchange as it begins. Times are milliseconds since the epoch. */
export interface LedgerBegin {
  readonly exchangeId: string;
  readonly at: number;
  readonly project: string;
  readonly session: string;
  /** The client's user agent, shortened. */
  readonly client: string;
  readonly method: string;
  readonly path: string;
  readonly dialect: string | undefined;
  readonly model: string | undefined;
  readonly stream: boolean;
}

/** What a usage cost: the provider's figures, an estimate, or unknown. Never a made-up 0. */
export interface LedgerCost {
  /** Undefined where the model has no known price. */
  readonly cost: CostByKind | undefined;
  /** The usage, or a part of it, is TokenMan's estimate. */
  readonly estimated: boolean;
  /** Why there is no price. */
  readonly unpriced: string | undefined;
}

export interface LedgerAttempt extends LedgerCost {
  readonly number: number;
  readonly at: number;
  readonly provider: string;
  /** As sent upstream. */
  readonly model: string | undefined;
  readonly result: AttemptResult;
  readonly headMs: number | undefined;
  readonly firstByteMs: number | undefined;
  readonly durationMs: number;
  readonly usage: Usage | undefined;
}

/** What was saved against the counterfactual, apart by cause; negative is a loss. Nano-dollars and tokens. */
export interface LedgerSaving {
  readonly kind: "response-cache" | "provider-cache" | "compression";
  readonly plugin: string;
  readonly tokens: number;
  readonly nanoUsd: number | undefined;
}

export interface LedgerTiming {
  readonly plugin: string;
  readonly hook: "request" | "beforeUpstream" | "response";
  readonly durationMs: number;
}

export interface LedgerBodies {
  readonly request: Buffer | undefined;
  readonly response: Buffer | undefined;
  readonly truncated: boolean;
}

/** An exchange as it ends. */
export interface LedgerEnd {
  readonly exchangeId: string;
  readonly at: number;
  readonly outcome: Outcome;
  readonly provider: string | undefined;
  readonly cache: "HIT" | "MISS" | "BYPASS" | "COALESCED" | undefined;
  readonly attempts: readonly LedgerAttempt[];
  readonly savings: readonly LedgerSaving[];
  readonly timings: readonly LedgerTiming[];
  readonly bodies: LedgerBodies | undefined;
}

/** A limit to hold a reservation against. */
export interface BudgetWindow {
  /** "total", "project:NAME", "provider:NAME", "model:NAME". */
  readonly scope: string;
  readonly period: "hourly" | "daily" | "monthly";
  /** The window's bounds, milliseconds since the epoch: from inclusive, to exclusive. */
  readonly from: number;
  readonly to: number;
  readonly limitNanoUsd: number;
}

export interface Reservation {
  /** Unique; a second `reserve` with the same id answers as the first did. */
  readonly id: string;
  readonly exchangeId: string;
  readonly at: number;
  readonly nanoUsd: number;
  readonly windows: readonly BudgetWindow[];
}

export type ReserveResult =
  | {
      readonly ok: true /** Spent and reserved in each window, this reservation included. */;
      readonly usedNanoUsd: readonly number[];
    }
  | { readonly ok: false; readonly window: BudgetWindow; readonly usedNanoUsd: number };

/**
 * The record of every exchange, and of what is reserved and spent. Designed for several writers: async, reserve then
 * settle, idempotent by id. The embedded one is SQLite; a shared one may follow.
 */
export interface Ledger {
  /** Queues the row; it is on disk within 200 ms. */
  begin(row: LedgerBegin): void;
  /** Queues the end of a row; rollups change with it, in the same transaction. */
  end(row: LedgerEnd): void;
  /** Atomic over all windows; resolves after the commit. Rejects where the store cannot commit: then a hard budget refuses. */
  reserve(reservation: Reservation): Promise<ReserveResult>;
  /** Replaces a reservation by what was spent. Idempotent; resolves after the commit. */
  settle(id: string, spentNanoUsd: number, at: number): Promise<void>;
  /** Spent and reserved in each window. */
  used(windows: readonly BudgetWindow[]): Promise<readonly number[]>;
  /** Resolves when all that was queued before is on disk. */
  flush(): Promise<void>;
  /** A read-only query by a reader worker; bounded in time. Rows are plain objects. */
  read<T>(sql: string, parameters?: readonly (string | number | bigint | null)[]): Promise<readonly T[]>;
  /** Rows that could not be written (disk full) since the start. */
  readonly lost: number;
}
export const Ledger: ServiceToken<Ledger> = service<Ledger>("Ledger");

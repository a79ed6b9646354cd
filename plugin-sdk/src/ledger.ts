import type { Usage } from "./dialect.ts";
import {
  type Attempt,
  type AttemptResult,
  type Exchange,
  type Outcome,
  type Slot,
  slot,
} from "./exchange.ts";
import type { CostByKind } from "./pricing.ts";
import type { PromptCacheResult } from "./prompt-cache.ts";
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

/** Where plugins leave what they saved (see {@link addSaving}), and whoever records the exchange finds it. */
const Savings: Slot<LedgerSaving[]> = slot<LedgerSaving[]>("ledger.savings");

/** Notes a saving, or a loss, on an exchange. Before it is settled; afterwards nobody looks. */
export function addSaving(exchange: Exchange, saving: LedgerSaving): void {
  const found = exchange.get(Savings);
  if (found === undefined) exchange.set(Savings, [saving]);
  else found.push(saving);
}

/** What was saved on an exchange so far. */
export function savingsOf(exchange: Exchange): readonly LedgerSaving[] {
  return exchange.get(Savings) ?? [];
}

/**
 * What an attempt used and cost, as the ledger has it: the provider's figures, or an estimate where it never told them.
 * Set on each attempt by the recorder, before the `settled` taps of the plugins after it run.
 */
export const AttemptBill: Slot<LedgerBill> = slot<LedgerBill>("ledger.attempt-bill");
export interface LedgerBill extends LedgerCost {
  readonly usage: Usage | undefined;
}

/** Says what attempts cost. Without a provider of it nobody bills: then money spent is not known, rather than 0. */
export interface Bills {
  /** Once the exchange is settled, from the `settled` taps of plugins after the provider's on; undefined before. */
  of(attempt: Attempt): LedgerBill | undefined;
}
export const Bills: ServiceToken<Bills> = service<Bills>("Bills");

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
  /** What `begin` gave for it: with that the two may be written as one. */
  readonly mark?: number | undefined;
  /** How it began, for those who watch and did not see that. */
  readonly begin?: LedgerBegin | undefined;
  readonly at: number;
  readonly outcome: Outcome;
  readonly provider: string | undefined;
  readonly cache: "HIT" | "MISS" | "BYPASS" | "COALESCED" | undefined;
  /** What the provider's prompt cache had of the turn; see {@link notePromptCache}. */
  readonly promptCache?: PromptCacheResult | undefined;
  readonly attempts: readonly LedgerAttempt[];
  readonly savings: readonly LedgerSaving[];
  readonly timings: readonly LedgerTiming[];
  readonly bodies: LedgerBodies | undefined;
  /** What went wrong, in words, without keys; searchable. */
  readonly error: string | undefined;
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
  /** Unique; until it is settled, a second `reserve` with the same id answers as the first did. */
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

/** From inclusive, to exclusive; milliseconds since the epoch. */
export interface LedgerRange {
  readonly from: number;
  readonly to: number;
}

export type LedgerOutcome = Outcome["kind"] | "open" | "interrupted";

/** Which exchanges; every condition given must hold. */
export interface LedgerFilter {
  readonly project?: string;
  readonly provider?: string;
  /** As asked for, or as sent upstream. */
  readonly model?: string;
  readonly session?: string;
  /** A status, or a class of them: 5 is 500 to 599. */
  readonly status?: number;
  readonly outcome?: LedgerOutcome;
  /** Words that the error's text has. */
  readonly text?: string;
  readonly from?: number;
  readonly to?: number;
}

/** Tokens by kind, as in {@link Usage}. */
export interface LedgerTokens {
  readonly inputTokens: number;
  readonly cacheReadTokens: number;
  readonly cacheWrite5mTokens: number;
  readonly cacheWrite1hTokens: number;
  readonly outputTokens: number;
  readonly reasoningTokens: number;
}

/** An exchange in a list. */
export interface LedgerSummary extends LedgerTokens {
  readonly id: string;
  readonly at: number;
  readonly project: string;
  readonly session: string;
  readonly client: string;
  readonly method: string;
  readonly path: string;
  readonly dialect: string | undefined;
  /** As the client asked. */
  readonly model: string | undefined;
  /** As sent upstream. */
  readonly sentModel: string | undefined;
  readonly provider: string | undefined;
  readonly stream: boolean;
  readonly outcome: LedgerOutcome;
  readonly status: number | undefined;
  readonly origin: Outcome["origin"];
  readonly code: string | undefined;
  readonly error: string | undefined;
  readonly cache: LedgerEnd["cache"];
  readonly promptCache?: PromptCacheResult | undefined;
  readonly durationMs: number | undefined;
  readonly firstByteMs: number | undefined;
  readonly bytesSent: number | undefined;
  readonly attempts: number;
  /** Of the attempts whose cost is known; undefined where none is. */
  readonly costNanoUsd: number | undefined;
  /** A part of the cost is TokenMan's estimate. */
  readonly estimated: boolean;
  /** A part of the cost is not known. */
  readonly unpriced: boolean;
}

/** One exchange with all that is known of it. */
export interface LedgerRecord extends LedgerSummary {
  readonly tries: readonly LedgerAttempt[];
  readonly savings: readonly LedgerSaving[];
  readonly timings: readonly LedgerTiming[];
  readonly bodies: LedgerBodies | undefined;
}

export interface LedgerPage {
  /** Newest first. */
  readonly rows: readonly LedgerSummary[];
  /**
   * Where the next page begins; undefined at the end. A page looks through a bounded number of exchanges: with a rare
   * filter it may have few rows, or none, and a cursor.
   */
  readonly next: string | undefined;
}

/** Sums over exchanges. Money is in nano-dollars, times are in microseconds. */
export interface LedgerFigures extends LedgerTokens {
  readonly requests: number;
  readonly answered: number;
  readonly aborted: number;
  readonly partial: number;
  readonly refused: number;
  readonly failed: number;
  readonly interrupted: number;
  /** Answered with a status of 400 or above. */
  readonly errors: number;
  readonly streams: number;
  /** From the response cache: hits, requests that waited for an identical one's answer, and misses. */
  readonly cacheHits: number;
  readonly cacheCoalesced: number;
  readonly cacheMisses: number;
  readonly attempts: number;
  readonly costInput: number;
  readonly costCacheRead: number;
  readonly costCacheWrite5m: number;
  readonly costCacheWrite1h: number;
  readonly costOutput: number;
  readonly costServerTools: number;
  readonly cost: number;
  /** The part of `cost` that rests on estimates. */
  readonly costEstimated: number;
  /** Attempts that used tokens of unknown price: they are not in `cost`. */
  readonly unpriced: number;
  /** Net, over all causes. */
  readonly savedTokens: number;
  /** Gross by cause, and what the same cause lost, as positive numbers: the net is the difference. */
  readonly savedResponseCache: number;
  readonly savedProviderCache: number;
  readonly savedCompression: number;
  readonly lostResponseCache: number;
  readonly lostProviderCache: number;
  readonly lostCompression: number;
  readonly durationUs: number;
  readonly firstByteUs: number;
  /** Exchanges with a first byte. */
  readonly firstBytes: number;
}

export type LedgerDimension = "project" | "provider" | "model";

/** Figures of one name; "" is what has none (no provider: refused, or answered from the cache). */
export interface LedgerGroup extends LedgerFigures {
  readonly name: string;
}

export interface LedgerPoint extends LedgerFigures {
  /** Where the step begins. */
  readonly at: number;
}

/** How the store is. */
export interface LedgerState {
  /** Rows that could not be written (disk full) since the start. */
  readonly lost: number;
  /** Rows that are not on disk yet. */
  readonly waiting: number;
  /** Why nothing can be written at present; undefined while all is well. */
  readonly failing: string | undefined;
}

/** A session's part, or more of it, in the comparison of sessions that compressors may change with those held out. */
export interface LedgerTrial {
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly session: string;
  /** Whether its session is held out: left as it is. */
  readonly held: boolean;
  /** Exchanges summed up here. */
  readonly requests: number;
  /** Input as the client sent it, and what the input cost, both in tokens at the price of plain input. */
  readonly originalTokens: number;
  readonly paidTokens: number;
}

/** Sums over sessions; one that goes on over midnight UTC is a session of each day. `squares` are of its sums. */
export interface LedgerTrialSums {
  readonly sessions: number;
  readonly requests: number;
  readonly originalTokens: number;
  readonly paidTokens: number;
  readonly originalSquares: number;
  readonly paidSquares: number;
  /** Of a session's original and paid tokens. */
  readonly products: number;
}

/** What one plugin saved by one cause. */
export interface LedgerPluginSaving {
  readonly plugin: string;
  readonly kind: LedgerSaving["kind"];
  /** Exchanges on which it saved or lost. */
  readonly requests: number;
  /** Net. */
  readonly tokens: number;
  /** Gross, and what it lost, as positive numbers: the net is the difference. */
  readonly savedNanoUsd: number;
  readonly lostNanoUsd: number;
}

export interface LedgerSavings extends LedgerRange {
  /** The most saved first. */
  readonly plugins: readonly LedgerPluginSaving[];
  readonly treated: LedgerTrialSums;
  readonly held: LedgerTrialSums;
}

export type LedgerEvent =
  | { readonly kind: "begin"; readonly row: LedgerBegin }
  | { readonly kind: "end"; readonly row: LedgerEnd };

/**
 * The record of every exchange, and of what is reserved and spent. Designed for several writers: async, reserve then
 * settle, idempotent by id. The embedded one is SQLite; a shared one may follow. Queries read what is on disk, which is
 * up to 200 ms old; they reject with TM_LEDGER_QUERY for a filter, range or cursor that makes no sense.
 */
export interface Ledger {
  /** Queues the row; it is on disk within 200 ms. May give a mark, for its end. */
  begin(row: LedgerBegin): number | undefined;
  /** Queues the end of a row; rollups change with it, in the same transaction. Later ends of the same row are ignored. */
  end(row: LedgerEnd): void;
  /** Queues what a session's exchanges add to the comparison with held-out ones. */
  trial(row: LedgerTrial): void;
  /**
   * Atomic over all windows; resolves when it, and the row of its exchange, outlive the process. Rejects with
   * TM_LEDGER_UNAVAILABLE where the store cannot write: then a hard budget refuses. A window's first reservation also counts what the ledger has of its past.
   */
  reserve(reservation: Reservation): Promise<ReserveResult>;
  /** Replaces a reservation by what was spent. Idempotent, no effect on an unknown id; resolves when it outlives the process. */
  settle(id: string, spentNanoUsd: number, at: number): Promise<void>;
  /** Spent and reserved in each window. */
  used(windows: readonly BudgetWindow[]): Promise<readonly number[]>;
  /** Resolves when all that was queued before is on disk, or given up. */
  flush(): Promise<void>;
  /** Sees each row as it is queued; synchronous, and must not throw. Returns the way to stop it. */
  watch(watcher: (event: LedgerEvent) => void): () => void;
  readonly state: LedgerState;

  page(
    filter: LedgerFilter,
    options?: { readonly cursor?: string; readonly limit?: number },
  ): Promise<LedgerPage>;
  /** Undefined for an id the ledger does not have. */
  request(id: string): Promise<LedgerRecord | undefined>;
  /**
   * Of exchanges begun in the range, which is widened to whole minutes within the last day, else to whole hours; to whole
   * days of UTC where the hours are gone.
   */
  totals(range: LedgerRange, only?: LedgerOnly): Promise<LedgerFigures & LedgerRange>;
  /**
   * One point for each step that has any. `stepMs` is a whole number of minutes (within the last day) or hours; steps count from
   * `range.from`. Rejects with TM_LEDGER_QUERY where hours are asked for that are not kept any more.
   */
  history(range: LedgerRange, stepMs: number, only?: LedgerOnly): Promise<readonly LedgerPoint[]>;
  /**
   * One point for each stretch between two neighbours of `bounds` that has any: the days of a time zone, say, which may begin
   * within an hour of UTC and differ in length. Exact; bounds are whole minutes, in order. Rejects as `history` does.
   */
  between(bounds: readonly number[], only?: LedgerOnly): Promise<readonly LedgerPoint[]>;
  /** Dearest first, at most `limit` (100). */
  groups(
    dimension: LedgerDimension,
    range: LedgerRange,
    options?: LedgerOnly & { readonly limit?: number },
  ): Promise<readonly LedgerGroup[]>;
  /**
   * By plugin and cause, and the comparison with held-out sessions, which knows no projects. The range is widened to whole
   * hours, one of more than eight days to whole days (UTC); the comparison's always.
   */
  savings(range: LedgerRange, only?: Pick<LedgerOnly, "project">): Promise<LedgerSavings>;
  /** A read-only query by a reader worker; bounded in time. Rows are plain objects. For what has no method here. */
  read<T>(sql: string, parameters?: readonly (string | number | bigint | null)[]): Promise<readonly T[]>;
}
export type LedgerOnly = Pick<LedgerFilter, LedgerDimension>;
export const Ledger: ServiceToken<Ledger> = service<Ledger>("Ledger");

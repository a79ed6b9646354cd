import type { DatabaseSync } from "node:sqlite";
import type { LedgerDimension } from "@tokenman/plugin-sdk";
import { ANSWERED, INTERRUPTED, OPEN } from "./codes.ts";
import { ATTEMPT_SUMS, CACHE_FIGURES, OUTCOME_FIGURES, SAVING_FIGURES } from "./counting.ts";
import { type Detail, readDetail } from "./detail.ts";
import { FIGURE, FIGURES } from "./figures.ts";
import { olderDetail } from "./record.ts";
import { keyAt } from "./time-key.ts";

/** Ids of the names that are asked for. */
export type NameIds = Readonly<Partial<Record<LedgerDimension, number>>>;

/** What rollups would say of the exchanges begun in [from, to), in the order of FIGURES: counted from the rows themselves. */
export function recount(db: DatabaseSync, from: number, to: number, ids: NameIds): Float64Array {
  const sums = new Float64Array(FIGURES.length);
  const mine = ids.project === undefined ? "" : ` AND project = ${ids.project}`;
  const rows = db
    .prepare(`SELECT * FROM request WHERE id >= ? AND id < ? AND outcome <> ${OPEN}${mine}`)
    .iterate(keyAt(from), keyAt(to)) as Iterable<unknown> as Iterable<Row>;
  for (const row of rows) {
    const counted = row.detail instanceof Uint8Array ? readDetail(row.detail) : undefined;
    addRow(sums, row, counted ?? { ...columnsOf(row), ...olderDetail(db, row.id) }, ids);
  }
  return sums;
}

interface Row {
  readonly id: number;
  readonly model: number | null;
  readonly sent_model: number | null;
  readonly provider: number | null;
  readonly stream: number;
  readonly outcome: number;
  readonly status: number | null;
  readonly cache: number | null;
  readonly duration_us: number | null;
  readonly first_byte_us: number | null;
  readonly detail: unknown;
}
type Counted = Pick<Detail, "cache" | "durationUs" | "firstByteUs" | "attempts" | "savings">;

function columnsOf(row: Row): Omit<Counted, "attempts" | "savings"> {
  return { cache: row.cache, durationUs: row.duration_us, firstByteUs: row.first_byte_us };
}

function addRow(
  sums: Float64Array,
  { outcome, model, provider, ...row }: Row,
  { cache, durationUs, firstByteUs, attempts, savings }: Counted,
  ids: NameIds,
): void {
  const add = (figure: number | undefined, value: number): void => {
    if (figure !== undefined) sums[figure]! += value;
  };
  if (isAt(ids, provider, row.sent_model ?? model)) {
    add(FIGURE.requests, 1);
    add(OUTCOME_FIGURES[outcome], 1);
    add(FIGURE.durationUs, durationUs ?? 0);
    if (outcome === INTERRUPTED) add(FIGURE.unpriced, 1);
    if (outcome === ANSWERED && (row.status ?? 0) >= 400) add(FIGURE.errors, 1);
    if (row.stream === 1 && outcome !== INTERRUPTED) add(FIGURE.streams, 1);
    if (cache !== null) add(CACHE_FIGURES[cache], 1);
    if (firstByteUs !== null) {
      add(FIGURE.firstBytes, 1);
      add(FIGURE.firstByteUs, firstByteUs);
    }
    for (const { kind, tokens, nanoUsd } of savings) {
      add(FIGURE.savedTokens, tokens);
      const [saved, lost] = SAVING_FIGURES[kind]!;
      if (nanoUsd !== null) add(nanoUsd < 0 ? lost : saved, Math.abs(nanoUsd));
    }
  }
  for (const attempt of attempts) {
    if (!isAt(ids, attempt.provider, attempt.model ?? model)) continue;
    add(FIGURE.attempts, 1);
    for (const [column, figure] of ATTEMPT_SUMS) add(figure, Number(attempt[column] ?? 0));
    if (attempt.estimated === 1) add(FIGURE.costEstimated, Number(attempt.cost ?? 0));
    if (attempt.unpriced !== null) add(FIGURE.unpriced, 1);
  }
}

/** Whether what counts for this provider and model is asked for. */
function isAt({ provider, model }: NameIds, ofProvider: unknown, ofModel: unknown): boolean {
  return (
    (provider === undefined || provider === (ofProvider ?? 0)) &&
    (model === undefined || model === (ofModel ?? 0))
  );
}

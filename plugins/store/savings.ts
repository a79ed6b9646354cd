import type { DatabaseSync } from "node:sqlite";
import type {
  LedgerOnly,
  LedgerPluginSaving,
  LedgerRange,
  LedgerSavings,
  LedgerTrialSums,
} from "@tokenman/plugin-sdk";
import { SAVINGS } from "./codes.ts";
import { textId } from "./filter.ts";
import { DAY_MS, HOUR_MS } from "./rollup.ts";
import { checkRange } from "./sums.ts";

/** Beyond them days are precise enough, and few. */
const HOURLY_DAYS = 8;

/** What plugins saved in the range, and the comparison with held-out sessions. Throws TM_LEDGER_QUERY. */
export function savings(
  db: DatabaseSync,
  range: LedgerRange,
  only: Pick<LedgerOnly, "project"> = {},
): LedgerSavings {
  checkRange(range);
  const isHourly = range.to - range.from <= HOURLY_DAYS * DAY_MS;
  const unit = isHourly ? HOUR_MS : DAY_MS;
  const from = Math.floor(range.from / unit);
  const to = Math.ceil(range.to / unit);
  const project = only.project === undefined ? undefined : textId(db, "project", only.project);
  const isUnknown = only.project !== undefined && project === undefined;
  const plugins = isUnknown
    ? []
    : db
        .prepare(
          `SELECT ifnull((SELECT value FROM text WHERE text.id = plugin), '') AS name, kind, sum(requests) AS requests,
           sum(tokens) AS tokens, sum(saved) AS saved, sum(lost) AS lost
           FROM ${isHourly ? "saving_hourly" : "saving_daily"}
           WHERE at >= ? AND at < ?${project === undefined ? "" : " AND project = ?"}
           GROUP BY plugin, kind ORDER BY sum(saved) - sum(lost) DESC, name`,
        )
        .all(from, to, ...(project === undefined ? [] : [project]))
        .map(
          (row): LedgerPluginSaving => ({
            plugin: String(row["name"]),
            kind: SAVINGS[Number(row["kind"])] ?? "compression",
            requests: Number(row["requests"]),
            tokens: Number(row["tokens"]),
            savedNanoUsd: Number(row["saved"]),
            lostNanoUsd: Number(row["lost"]),
          }),
        );
  const days = [Math.floor(range.from / DAY_MS), Math.ceil(range.to / DAY_MS)] as const;
  return {
    from: from * unit,
    to: to * unit,
    plugins,
    treated: trialSums(db, days, 0),
    held: trialSums(db, days, 1),
  };
}

function trialSums(db: DatabaseSync, [from, to]: readonly [number, number], held: 0 | 1): LedgerTrialSums {
  const row =
    db
      .prepare(
        `SELECT total(sessions) AS sessions, total(requests) AS requests, total(original) AS original,
         total(paid) AS paid, total(original_squares) AS original_squares, total(paid_squares) AS paid_squares,
         total(products) AS products FROM trial_daily WHERE day >= ? AND day < ? AND held = ?`,
      )
      .get(from, to, held) ?? {};
  return {
    sessions: Number(row["sessions"]),
    requests: Number(row["requests"]),
    originalTokens: Number(row["original"]),
    paidTokens: Number(row["paid"]),
    originalSquares: Number(row["original_squares"]),
    paidSquares: Number(row["paid_squares"]),
    products: Number(row["products"]),
  };
}

import type { DatabaseSync } from "node:sqlite";
import { HOUR_MS } from "./rollup.ts";
import { KEYS_PER_MS } from "./time-key.ts";

const MAX_PROBLEMS = 20;

/** What is wrong with a database, in sentences; empty where all is well. Reads all of it. */
export function verify(db: DatabaseSync): string[] {
  const problems = db
    .prepare(`PRAGMA integrity_check(${MAX_PROBLEMS})`)
    .all()
    .map((row) => String(row["integrity_check"]))
    .filter((line) => line !== "ok");
  if (problems.length > 0) return problems;
  // One snapshot for both sides of a comparison: a running TokenMan goes on writing.
  db.exec("BEGIN");
  try {
    problems.push(...hoursThatDiffer(db), ...attemptsWithout(db));
  } finally {
    db.exec("COMMIT");
  }
  return problems;
}

/** Rollups against rows, but for the oldest hour, part of which may have been pruned. */
function hoursThatDiffer(db: DatabaseSync): string[] {
  const hourOf = `${KEYS_PER_MS * HOUR_MS}`;
  return db
    .prepare(
      `WITH rows AS (
         SELECT id / ${hourOf} AS at, count(*) AS requests, total(cost) AS cost, total(output) AS output
         FROM request WHERE outcome <> 0 GROUP BY 1)
       SELECT rows.at, rows.requests, rows.cost, hourly_total.requests AS summed, hourly_total.cost AS summed_cost
       FROM rows LEFT JOIN hourly_total ON hourly_total.at = rows.at
       WHERE rows.at > (SELECT min(id) / ${hourOf} FROM request)
         AND (rows.requests <> ifnull(hourly_total.requests, 0) OR rows.cost <> ifnull(hourly_total.cost, 0)
           OR rows.output <> ifnull(hourly_total.output, 0))
       LIMIT ?`,
    )
    .all(MAX_PROBLEMS)
    .map(
      (row) =>
        `the hour from ${new Date(Number(row["at"]) * HOUR_MS).toISOString()} has ${row["requests"]} requests for ${row["cost"]} nano-dollars, and its sums say ${row["summed"]} for ${row["summed_cost"]}`,
    );
}

function attemptsWithout(db: DatabaseSync): string[] {
  const { n } = db
    .prepare(
      "SELECT count(*) AS n FROM attempt WHERE NOT EXISTS (SELECT 1 FROM request WHERE id = attempt.request)",
    )
    .get() as { n: number };
  return n === 0 ? [] : [`${n} attempts belong to no request`];
}

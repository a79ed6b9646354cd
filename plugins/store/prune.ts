import type { DatabaseSync } from "node:sqlite";
import { pruneDecisions } from "./decision-rows.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS } from "./rollup.ts";
import { keyAt } from "./time-key.ts";
import { pruneTrialSessions } from "./trials.ts";

/** Exchanges that go in one transaction: short enough for a reservation to wait behind. */
const BATCH = 500;
/** Minutes are kept this long, and hours at least this long: for charts of a month, by the days of any time zone. */
const HOURS_DAYS = 62;

export interface Retention {
  /** Days that exchanges stay; 0 is for ever. */
  readonly days: number;
  /** Days that bodies stay, if that is less; 0 is as long as their exchanges. */
  readonly bodyDays: number;
}

/**
 * Removes one batch of what is too old, in a transaction of its own, and says whether there may be more. Sums by day
 * stay for ever.
 */
export function pruneSome(db: DatabaseSync, { days, bodyDays }: Retention, now: number): boolean {
  db.exec("BEGIN IMMEDIATE");
  try {
    let more = bodyDays > 0 && pruneBodies(db, keyAt(now - bodyDays * DAY_MS));
    if (days > 0 && pruneExchanges(db, keyAt(now - days * DAY_MS))) more = true;
    db.prepare("DELETE FROM minutely_total WHERE at < ?").run(
      Math.floor((now - HOURS_DAYS * DAY_MS) / MINUTE_MS),
    );
    if (days > 0) {
      // Whole days of UTC, so that hours and days have no gap between them.
      const hour = (Math.floor(now / DAY_MS) - Math.max(days, HOURS_DAYS)) * (DAY_MS / HOUR_MS);
      db.prepare("DELETE FROM hourly_total WHERE at < ?").run(hour);
      db.prepare("DELETE FROM saving_hourly WHERE at < ?").run(hour);
      // A year's hours of many projects are many rows: a batch of hours at a time.
      const oldest = db.prepare("SELECT min(at) AS at FROM hourly").get()?.["at"];
      if (oldest !== null && oldest !== undefined && Number(oldest) < hour) {
        db.prepare("DELETE FROM hourly WHERE at < ?").run(Math.min(hour, Number(oldest) + 24));
        more = true;
      }
    }
    // A window's end is a day past before it goes: a late settlement still finds its reservation.
    db.prepare("DELETE FROM reservation WHERE until < ?").run(now - DAY_MS);
    db.prepare("DELETE FROM budget_window WHERE until < ?").run(now - DAY_MS);
    db.exec(
      `DELETE FROM lease WHERE NOT EXISTS (SELECT 1 FROM budget_window
       WHERE scope = lease.scope AND period = lease.period AND start = lease.start)`,
    );
    pruneTrialSessions(db, now);
    if (pruneDecisions(db, now)) more = true;
    db.exec("COMMIT");
    return more;
  } catch (cause) {
    if (db.isTransaction) db.exec("ROLLBACK");
    throw cause;
  }
}

/** Gives the space of removed rows back to the file system, some of it. */
export function shrinkSome(db: DatabaseSync): void {
  db.exec("PRAGMA incremental_vacuum(2000)");
}

function pruneBodies(db: DatabaseSync, before: number): boolean {
  const { changes } = db
    .prepare(
      "DELETE FROM body WHERE request IN (SELECT request FROM body WHERE request < ? ORDER BY request LIMIT ?)",
    )
    .run(before, BATCH);
  return Number(changes) === BATCH;
}

function pruneExchanges(db: DatabaseSync, before: number): boolean {
  const old = db
    .prepare("SELECT id, session FROM request WHERE id < ? ORDER BY id LIMIT ?")
    .all(before, BATCH);
  const last = old.at(-1)?.["id"];
  if (last === undefined) return false;
  for (const table of ["attempt", "saving", "timing", "failure", "body"])
    db.prepare(`DELETE FROM ${table} WHERE request <= ?`).run(last);
  db.prepare("DELETE FROM request WHERE id <= ?").run(last);
  const unused = db.prepare(
    "DELETE FROM text WHERE id = ? AND NOT EXISTS (SELECT 1 FROM request WHERE session = ?)",
  );
  for (const session of new Set(old.map((row) => Number(row["session"])))) unused.run(session, session);
  return old.length === BATCH;
}

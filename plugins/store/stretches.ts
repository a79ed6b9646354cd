import type { DatabaseSync } from "node:sqlite";
import type { LedgerOnly, LedgerPoint } from "@tokenman/plugin-sdk";
import { FIGURE, FIGURES, noFigures, type Sums } from "./figures.ts";
import { checkMs, question } from "./filter.ts";
import { type NameIds, recount } from "./recount.ts";
import { HOUR_MS, MINUTE_MS } from "./rollup.ts";
import { assertHours, idsOf, spanSums, whereOf } from "./sums.ts";
import { msOf } from "./time-key.ts";

const MAX_STRETCHES = 1_000;

/**
 * Figures of the stretches between neighbours of `bounds`, exact to the minute: days of any time zone, however long they
 * are. Whole hours come from the rollups. Where a stretch begins or ends within an hour, the minutes are summed; where
 * there are none (they have no names), that part of an hour is counted row by row. Throws TM_LEDGER_QUERY.
 */
export function between(
  db: DatabaseSync,
  bounds: readonly number[],
  only: LedgerOnly = {},
): readonly LedgerPoint[] {
  checkBounds(bounds);
  const ids = idsOf(db, only);
  if (ids === undefined) return [];
  assertHours(db, bounds[0]!);
  const where = whereOf(ids);
  const minutesFrom = where === "" ? oldestMinute(db) : Number.POSITIVE_INFINITY;
  const points: LedgerPoint[] = [];
  for (let index = 0; index + 1 < bounds.length; index++) {
    const [from, to] = [bounds[index]!, bounds[index + 1]!];
    const sums = noFigures();
    const first = Math.min(Math.ceil(from / HOUR_MS) * HOUR_MS, to);
    const last = Math.max(Math.floor(to / HOUR_MS) * HOUR_MS, first);
    addTo(sums, spanSums(db, { from: first, to: last }, HOUR_MS, where));
    for (const edge of [
      { from, to: first },
      { from: last, to },
    ]) {
      if (edge.from === edge.to) continue;
      if (edge.from >= minutesFrom) addTo(sums, spanSums(db, edge, MINUTE_MS, where));
      else addTo(sums, countedRows(db, edge, ids));
    }
    if (FIGURES.some(([, name]) => sums[name] !== 0)) points.push({ at: from, ...sums });
  }
  return points;
}

function checkBounds(bounds: readonly number[]): void {
  if (!Array.isArray(bounds) || bounds.length < 2 || bounds.length > MAX_STRETCHES + 1)
    throw question(`a range has 1 to ${MAX_STRETCHES} stretches`);
  let before = Number.NEGATIVE_INFINITY;
  for (const bound of bounds) {
    checkMs("a bound", bound);
    if (bound % MINUTE_MS !== 0) throw question("a bound is a whole minute");
    if (bound <= before) throw question("bounds are in order");
    before = bound;
  }
}

/** From where on there are sums by minute. */
function oldestMinute(db: DatabaseSync): number {
  const at = db.prepare("SELECT min(at) AS at FROM minutely_total").get()?.["at"];
  return typeof at === "number" ? at * MINUTE_MS : Number.POSITIVE_INFINITY;
}

function countedRows(
  db: DatabaseSync,
  edge: { readonly from: number; readonly to: number },
  ids: NameIds,
): Sums {
  const oldest = db.prepare("SELECT min(id) AS id FROM request").get()?.["id"];
  const rowsFrom = typeof oldest === "number" ? msOf(oldest) : Number.POSITIVE_INFINITY;
  if (edge.from < rowsFrom) {
    const from = Math.floor(edge.from / HOUR_MS) * HOUR_MS;
    const hour = { from, to: from + HOUR_MS };
    // Rows of that hour were removed.
    if (
      recount(db, hour.from, hour.to, ids)[FIGURE.requests] !==
      spanSums(db, hour, HOUR_MS, whereOf(ids)).requests
    )
      throw question("days that begin within an hour are known as far back as requests are kept");
  }
  const sums = noFigures();
  const counted = recount(db, edge.from, edge.to, ids);
  FIGURES.forEach(([, name], index) => {
    sums[name] = counted[index]!;
  });
  return sums;
}

function addTo(sums: Sums, more: Sums): void {
  for (const [, name] of FIGURES) sums[name] += more[name];
}

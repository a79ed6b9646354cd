import type { DatabaseSync } from "node:sqlite";
import type {
  LedgerDimension,
  LedgerFigures,
  LedgerGroup,
  LedgerOnly,
  LedgerPoint,
  LedgerRange,
} from "@tokenman/plugin-sdk";
import { FIGURES, noFigures, SUMMED, type Sums } from "./figures.ts";
import { checkMs, question, textId } from "./filter.ts";
import type { NameIds } from "./recount.ts";
import { DAY_MS, HOUR_MS, MINUTE_MS } from "./rollup.ts";

const DIMENSIONS: readonly LedgerDimension[] = ["project", "provider", "model"];
const MAX_GROUPS = 1_000;
const MAX_POINTS = 5_000;

type Row = Readonly<Record<string, unknown>>;

/** Sums over exchanges begun in the range, widened to what rollups can tell. Throws TM_LEDGER_QUERY. */
export function totals(
  db: DatabaseSync,
  range: LedgerRange,
  only: LedgerOnly = {},
): LedgerFigures & LedgerRange {
  const ids = idsOf(db, only);
  const grain = grainOf(range, only);
  const { from, to } = widened(db, range, grain);
  if (ids === undefined) return { ...noFigures(), from, to };
  return { ...spanSums(db, { from, to }, grain, whereOf(ids)), from, to };
}

/** Sums of a range whose bounds are whole units of `grain`. */
export function spanSums(db: DatabaseSync, { from, to }: LedgerRange, grain: number, where: string): Sums {
  return figuresOf(db.prepare(`SELECT ${SUMMED} FROM (${spansSql(from, to, grain, where)})`).get() ?? {});
}

/** Steps that have any figures, in order. Throws TM_LEDGER_QUERY. */
export function history(
  db: DatabaseSync,
  range: LedgerRange,
  stepMs: number,
  only: LedgerOnly = {},
): readonly LedgerPoint[] {
  const ids = idsOf(db, only);
  const grain = grainOf(range, only, stepMs);
  if (!Number.isInteger(stepMs) || stepMs <= 0 || stepMs % grain !== 0)
    throw question(`step is a multiple of ${grain === MINUTE_MS ? "one minute" : "one hour"} for this range`);
  if ((range.to - range.from) / stepMs > MAX_POINTS)
    throw question(`a range has at most ${MAX_POINTS} steps`);
  if (ids === undefined) return [];
  const from = Math.floor(range.from / grain) * grain;
  const to = Math.ceil(range.to / grain) * grain;
  // Days can be read as days only where the steps begin with them.
  const coarsest = from % DAY_MS === 0 && stepMs % DAY_MS === 0 ? DAY_MS : HOUR_MS;
  if (coarsest === HOUR_MS) assertHours(db, from);
  return db
    .prepare(
      `SELECT CAST((began - ?) / ? AS INTEGER) AS step, ${SUMMED} FROM (${spansSql(from, to, grain, whereOf(ids), coarsest)})
       GROUP BY step ORDER BY step`,
    )
    .all(from, stepMs)
    .map((row) => ({ at: from + Number(row["step"]) * stepMs, ...figuresOf(row) }));
}

/** Figures by name, the dearest first. Throws TM_LEDGER_QUERY. */
export function groups(
  db: DatabaseSync,
  dimension: LedgerDimension,
  range: LedgerRange,
  options: LedgerOnly & { readonly limit?: number } = {},
): readonly LedgerGroup[] {
  const { limit = 100, ...only } = options;
  if (!DIMENSIONS.includes(dimension)) throw question(`groups are by ${DIMENSIONS.join(", ")}`);
  if (!Number.isInteger(limit) || limit < 1 || limit > MAX_GROUPS)
    throw question(`limit is a whole number from 1 to ${MAX_GROUPS}`);
  const ids = idsOf(db, only);
  checkRange(range);
  if (ids === undefined) return [];
  const { from, to } = widened(db, range, HOUR_MS);
  const named = whereOf(ids) || "1";
  return db
    .prepare(
      `SELECT ifnull((SELECT value FROM text WHERE text.id = ${dimension}), '') AS name, ${SUMMED}
       FROM (${spansSql(from, to, HOUR_MS, named)}) GROUP BY ${dimension}
       ORDER BY total(cost) DESC, total(requests) DESC, name LIMIT ?`,
    )
    .all(limit)
    .map((row) => ({ name: String(row["name"]), ...figuresOf(row) }));
}

/** The ids of the names that are asked for; undefined: nothing can match. */
export function idsOf(db: DatabaseSync, only: LedgerOnly): NameIds | undefined {
  const ids: { [K in LedgerDimension]?: number } = {};
  for (const dimension of DIMENSIONS) {
    const name = only[dimension];
    if (name === undefined) continue;
    const id = textId(db, dimension, name);
    if (id === undefined) return undefined;
    ids[dimension] = id;
  }
  return ids;
}

/** The conditions as SQL, which holds nothing but column names and numbers; empty for none. */
export function whereOf(ids: NameIds): string {
  return DIMENSIONS.flatMap((each) => (ids[each] === undefined ? [] : [`${each} = ${ids[each]}`])).join(
    " AND ",
  );
}

/** The first of the hours that are kept, where older ones were removed, whose days are; else 0. */
function oldestHour(db: DatabaseSync): number {
  const row = db
    .prepare("SELECT (SELECT min(at) FROM hourly_total) AS hour, (SELECT min(at) FROM daily_total) AS day")
    .get() as { readonly hour: number | null; readonly day: number | null };
  const first = (row.hour ?? Number.POSITIVE_INFINITY) * HOUR_MS;
  return row.day !== null && row.day * DAY_MS <= first - DAY_MS ? first : 0;
}

/** Throws TM_LEDGER_QUERY where hours are asked for that are not kept any more. */
export function assertHours(db: DatabaseSync, from: number): void {
  const first = oldestHour(db);
  if (from >= Math.floor(first / DAY_MS) * DAY_MS) return;
  throw question(
    `hours, and the days of a time zone, are kept from ${new Date(first).toISOString()} on; further back there are days of UTC`,
  );
}

/** To whole units of `grain`, and to days where there is nothing else any more. */
function widened(db: DatabaseSync, range: LedgerRange, grain: number): LedgerRange {
  const first = oldestHour(db);
  const [unit, end] = [range.from, range.to].map((bound) => (bound < first ? DAY_MS : grain));
  return { from: Math.floor(range.from / unit!) * unit!, to: Math.ceil(range.to / end!) * end! };
}

export function checkRange({ from, to }: LedgerRange): void {
  checkMs("from", from);
  checkMs("to", to);
  if (from >= to) throw question("from is before to");
}

/** Minutes are kept for two days, and without names. */
function grainOf(range: LedgerRange, only: LedgerOnly, stepMs?: number): number {
  checkRange(range);
  const named = DIMENSIONS.some((dimension) => only[dimension] !== undefined);
  const wantsMinutes = stepMs === undefined ? range.to - range.from <= DAY_MS : stepMs % HOUR_MS !== 0;
  return !named && wantsMinutes && range.from >= Date.now() - DAY_MS - HOUR_MS ? MINUTE_MS : HOUR_MS;
}

/**
 * Selects the rollups that make up a range, each time in the coarsest that fits, as `began` (ms) and figures. A `where`
 * asks for the ones with names.
 */
function spansSql(from: number, to: number, grain: number, where: string, coarsest: number = DAY_MS): string {
  const named = where !== "";
  const spans: string[] = [];
  const columns = FIGURES.map(([column]) => column).join(", ");
  const span = (table: string, unit: number, since: number, until: number): void => {
    if (since >= until) return;
    const more = named ? `, project, provider, model` : "";
    spans.push(
      `SELECT at * ${unit} AS began${more}, ${columns} FROM ${table}
       WHERE at >= ${Math.floor(since / unit)} AND at < ${Math.floor(until / unit)}${named ? ` AND ${where}` : ""}`,
    );
  };
  const fill = (unit: number, since: number, until: number): void => {
    const table = unit === DAY_MS ? "daily" : unit === HOUR_MS ? "hourly" : "minutely";
    span(named ? table : `${table}_total`, unit, since, until);
  };
  const cover = (units: readonly number[], since: number, until: number): void => {
    const [unit, ...finer] = units;
    if (unit === undefined || since >= until) return;
    const first = Math.ceil(since / unit) * unit;
    const last = Math.floor(until / unit) * unit;
    if (first >= last) cover(finer, since, until);
    else {
      cover(finer, since, first);
      fill(unit, first, last);
      cover(finer, last, until);
    }
  };
  cover(
    [DAY_MS, HOUR_MS, MINUTE_MS].filter((unit) => unit >= grain && unit <= coarsest),
    from,
    to,
  );
  if (spans.length === 0) span(named ? "hourly" : "hourly_total", HOUR_MS, 0, 1);
  return spans.join(" UNION ALL ");
}

function figuresOf(row: Row): Sums {
  const figures = noFigures();
  for (const [, name] of FIGURES) figures[name] = Number(row[name] ?? 0);
  return figures;
}

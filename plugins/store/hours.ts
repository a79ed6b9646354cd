import type { DatabaseSync } from "node:sqlite";
import { HOUR_MS } from "./rollup.ts";
import { KEYS_PER_MS } from "./time-key.ts";

/** Keys of one hour. */
const HOUR_KEYS = HOUR_MS * KEYS_PER_MS;

export type WalkedRow = readonly (number | null)[];

/** What is looked for: at least one of the two. */
export interface Sought {
  readonly provider: number | undefined;
  readonly model: number | undefined;
}

/**
 * The exchanges that may be a provider's or a model's, newest first: those of the hours whose rollups have it. An index
 * of all exchanges by either would take a tenth of the time to write them, for a handful of names. Of a model, those that
 * were sent as they were asked for; the others have an index.
 *
 * Between rows there are lists of nothing but a key: all that is at or above it has been looked at.
 */
export function* walkHours(
  db: DatabaseSync,
  { provider, model }: Sought,
  columns: string,
  sentModelAt: number,
  lowest: number,
  below: number,
): Generator<WalkedRow, undefined> {
  const first = Number(db.prepare("SELECT min(id) AS id FROM request").get()?.["id"] ?? 0);
  const from = Math.max(lowest, first);
  if (from >= below) return;
  const rows = db.prepare(`SELECT id, ${columns} FROM request WHERE id >= ? AND id < ? ORDER BY id DESC`);
  rows.setReturnArrays(true);
  let last = Number.POSITIVE_INFINITY;
  for (const [hour, mayHave] of hoursOf(db, { provider, model }, from, below)) {
    const end = Math.min(below, (hour + 1) * HOUR_KEYS);
    if (!mayHave || hour === last) {
      yield [hour === last ? hour * HOUR_KEYS : end];
      continue;
    }
    last = hour;
    yield [end];
    const found = rows.iterate(Math.max(from, hour * HOUR_KEYS), end) as unknown as Iterable<WalkedRow>;
    for (const row of found)
      yield model === undefined || row[sentModelAt] === null ? row : [row[0] as number];
  }
  return;
}

/** Hours to look at, the newest first, some of them repeatedly; and whether the rollup's names are the ones sought. */
function* hoursOf(
  db: DatabaseSync,
  { provider, model }: Sought,
  from: number,
  below: number,
): Generator<readonly [hour: number, mayHave: boolean]> {
  const bounds = [Math.floor(from / HOUR_KEYS), Math.floor((below - 1) / HOUR_KEYS)] as const;
  const rollups = db.prepare(
    `SELECT at, provider FROM hourly WHERE ${model === undefined ? "provider" : "model"} = ? AND at >= ? AND at <= ?
     ORDER BY at DESC`,
  );
  // What is open is in no rollup yet, and has no provider.
  const open =
    provider === undefined
      ? db
          .prepare(
            `SELECT DISTINCT id / ${HOUR_KEYS} AS at FROM request WHERE boot > 0 AND outcome = 0 ORDER BY at DESC`,
          )
          .all()
          .map(({ at }) => Number(at))
          .filter((at) => at >= bounds[0] && at <= bounds[1])
      : [];
  let next = 0;
  for (const row of rollups.iterate((model ?? provider)!, ...bounds)) {
    const at = Number(row["at"]);
    while (next < open.length && open[next]! > at) yield [open[next++]!, true];
    yield [at, provider === undefined || Number(row["provider"]) === provider];
  }
  while (next < open.length) yield [open[next++]!, true];
}

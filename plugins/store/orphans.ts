import { readdirSync, rmSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import { holderOf } from "./journal.ts";
import { DAY_MS } from "./rollup.ts";

/**
 * Removes journals that count nowhere: of a process that died before it was allowed anything, or when all of it was given
 * back already; and those of a database that was set aside. They must have been left alone for a day: to a database that was
 * begun anew, a process that lives makes itself known only when it asks again.
 */
export function removeOrphans(db: DatabaseSync, database: string, now: number): void {
  const isHolder = db.prepare("SELECT 1 FROM holder WHERE id = ?");
  const folder = dirname(database);
  for (const name of readdirSync(folder)) {
    const holder = holderOf(database, name);
    if (holder === undefined || isHolder.get(holder) !== undefined) continue;
    const file = join(folder, name);
    const changedAt = statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? now;
    if (changedAt < now - DAY_MS) rmSync(file, { force: true });
  }
}

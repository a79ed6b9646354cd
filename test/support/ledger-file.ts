import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";

/** How many rows of each outcome each process wrote, in the order in which they started. */
export function outcomesByProcess(dataDir: string): Record<string, number>[] {
  const names = ["open", "answered", "aborted", "partial", "refused", "failed", "interrupted"];
  const db = new DatabaseSync(join(dataDir, "ledger.db"), { readOnly: true });
  try {
    const boots = db.prepare("SELECT id FROM boot ORDER BY id").all();
    const counts = db.prepare(
      "SELECT outcome, count(*) AS rows FROM request WHERE boot = ? GROUP BY outcome",
    );
    return boots.map(({ id }) =>
      Object.fromEntries(
        counts.all(Number(id)).map(({ outcome, rows }) => [names[Number(outcome)], Number(rows)]),
      ),
    );
  } finally {
    db.close();
  }
}

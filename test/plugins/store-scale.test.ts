import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import { after, describe, test } from "node:test";
import { openForReading } from "../../plugins/store/open.ts";
import { page } from "../../plugins/store/page.ts";
import { groups, history, totals } from "../../plugins/store/sums.ts";
import { fillLedger } from "../../scripts/bench/fill-ledger.ts";

const DAY_MS = 86_400_000;
const ROWS = 20_000;

/** A database that notes how SQLite goes about what it is asked. */
function noting(db: DatabaseSync): { readonly db: DatabaseSync; readonly plans: string[] } {
  const plans: string[] = [];
  const prepare = db.prepare.bind(db);
  db.prepare = (sql) => {
    for (const { detail } of prepare(`EXPLAIN QUERY PLAN ${sql}`).all()) plans.push(String(detail));
    return prepare(sql);
  };
  return { db, plans };
}

describe("a ledger of any size", () => {
  const folder = mkdtempSync(join(tmpdir(), "ledger-scale-"));
  const file = join(folder, "ledger.db");
  fillLedger(file, ROWS, 30);
  const { db, plans } = noting(openForReading(file));
  after(() => {
    db.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const month = { from: Date.now() - 30 * DAY_MS, to: Date.now() };
  const plansOf = (ask: () => unknown): string[] => {
    plans.length = 0;
    ask();
    assert.ok(plans.length > 0);
    return [...plans];
  };

  for (const [name, filter] of Object.entries({
    "the newest": {},
    "a project's": { project: "project-3" },
    "a model's": { model: "llama-4-70b" },
    "a provider's": { provider: "local" },
    "a status's": { status: 529 },
    "a class of statuses": { status: 5 },
    "a pair": { project: "project-3", status: 429 },
    "a disjoint pair": { provider: "local", model: "gpt-5.1" },
    "words of the error": { text: "tool_use ids" },
    "words and a project": { text: "overloaded", project: "project-3" },
  })) {
    test(`a page of ${name} never goes through all requests`, () => {
      let cursor: string | undefined;
      for (let pages = 0; pages < 3; pages++) {
        const found = plansOf(() => {
          cursor = page(db, filter, cursor === undefined ? {} : { cursor }).next;
        });
        assert.deepEqual(
          found.filter((plan) => /^SCAN (?:request|attempt|failure)\b/.test(plan)),
          [],
        );
        if (cursor === undefined) break;
      }
    });
  }

  test("sums and histories read rollups, within their range and of their names alone", () => {
    for (const ask of [
      () => totals(db, month),
      () => totals(db, month, { project: "project-3" }),
      () => history(db, month, 3_600_000),
      () => history(db, month, DAY_MS),
      () => groups(db, "project", month),
    ]) {
      const found = plansOf(ask).filter((plan) =>
        /\b(?:request|attempt)\b|^SCAN (?:hourly|daily|minutely)/.test(plan),
      );
      assert.deepEqual(found, []);
    }
    for (const [only, index] of [
      [{ project: "project-3" }, "hourly_project"],
      [{ model: "gpt-5.1" }, "hourly_model"],
    ] as const) {
      const found = plansOf(() => history(db, month, 3_600_000, only));
      assert.ok(
        found.some((plan) => plan.includes(`USING INDEX ${index}`)),
        found.join("\n"),
      );
    }
  });

  test("grows by less than 700 bytes a request", () => {
    assert.ok(statSync(file).size / ROWS < 700);
  });
});

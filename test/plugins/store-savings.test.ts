import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, test } from "node:test";
import type { LedgerSaving, LedgerTrial } from "@tokenman/plugin-sdk";
import { migrate, schemaVersion } from "../../plugins/store/migrate.ts";
import { pruneSome } from "../../plugins/store/prune.ts";
import { savings } from "../../plugins/store/savings.ts";
import { MIGRATIONS } from "../../plugins/store/schema.ts";
import { Trials } from "../../plugins/store/trials.ts";
import { attemptRow, beginRow, endRow } from "../support/ledger-rows.ts";
import { openLedger } from "../support/open-ledger.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const NOON = Math.floor(Date.now() / DAY_MS) * DAY_MS - 2 * DAY_MS + 12 * HOUR_MS;
const saving = (plugin: string, nanoUsd: number | undefined, tokens = 10): LedgerSaving => ({
  kind: "compression",
  plugin,
  tokens,
  nanoUsd,
});

function database(): DatabaseSync {
  const db = new DatabaseSync(":memory:");
  migrate(db);
  return db;
}

describe("what plugins saved", () => {
  test("is summed up by plugin, cause and project, losses apart", async () => {
    await using open = await openLedger();
    const { ledger } = open;
    const add = (at: number, project: string, list: readonly LedgerSaving[]): void => {
      const begin = beginRow({ at, project });
      ledger.begin(begin);
      ledger.end(endRow(begin, { attempts: [attemptRow()], savings: list }));
    };
    add(NOON, "web", [saving("rules", 500), saving("history", -200, -3)]);
    add(NOON + HOUR_MS, "web", [saving("rules", 100), saving("history", 50)]);
    add(NOON + HOUR_MS, "other", [saving("rules", undefined, 7)]);
    await ledger.flush();
    const rows = async (from: number, to: number, project?: string) =>
      (await ledger.savings({ from, to }, project === undefined ? {} : { project })).plugins.map(
        ({ plugin, requests, tokens, savedNanoUsd, lostNanoUsd }) => [
          plugin,
          requests,
          tokens,
          savedNanoUsd,
          lostNanoUsd,
        ],
      );
    const all = [
      ["rules", 3, 27, 600, 0],
      ["history", 2, 7, 50, 200],
    ];
    assert.deepEqual(await rows(NOON, NOON + 2 * HOUR_MS), all);
    // By days, where the range is long.
    assert.deepEqual(await rows(NOON - 20 * DAY_MS, NOON + DAY_MS), all);
    assert.deepEqual(await rows(NOON, NOON + HOUR_MS), [
      ["rules", 1, 10, 500, 0],
      ["history", 1, -3, 0, 200],
    ]);
    assert.deepEqual(await rows(NOON, NOON + 2 * HOUR_MS, "other"), [["rules", 1, 7, 0, 0]]);
    assert.deepEqual(await rows(NOON, NOON + 2 * HOUR_MS, "nobody"), []);
    await assert.rejects(() => rows(NOON, NOON), /from is before to/);
  });

  test("is not counted twice when an end comes twice", async () => {
    await using open = await openLedger();
    const begin = beginRow({ at: NOON });
    const end = endRow(begin, { attempts: [attemptRow()], savings: [saving("rules", 5)] });
    open.ledger.begin(begin);
    open.ledger.end(end);
    await open.ledger.flush();
    open.ledger.end(end);
    await open.ledger.flush();
    const { plugins } = await open.ledger.savings({ from: NOON, to: NOON + HOUR_MS });
    assert.equal(plugins[0]!.requests, 1);
  });
});

describe("the comparison with held-out sessions", () => {
  const trial = (
    session: string,
    held: boolean,
    originalTokens: number,
    paidTokens: number,
    at = NOON,
  ): LedgerTrial => ({
    at,
    session,
    held,
    requests: 2,
    originalTokens,
    paidTokens,
  });
  const range = { from: NOON, to: NOON + HOUR_MS };

  test("has the sums of sessions, however often each of them is told of", () => {
    const db = database();
    const trials = new Trials(db);
    trials.add(trial("a", false, 100, 50));
    trials.add(trial("b", false, 10, 9));
    trials.add(trial("a", false, 200, 30));
    trials.add(trial("c", true, 7, 7));
    assert.deepEqual(savings(db, range).treated, {
      sessions: 2,
      requests: 6,
      originalTokens: 310,
      paidTokens: 89,
      originalSquares: 300 ** 2 + 10 ** 2,
      paidSquares: 80 ** 2 + 9 ** 2,
      products: 300 * 80 + 10 * 9,
    });
    assert.equal(savings(db, range).held.sessions, 1);
    // Another day is another observation.
    trials.add(trial("a", false, 1, 1, NOON + DAY_MS));
    assert.equal(savings(db, { from: NOON, to: NOON + 2 * DAY_MS }).treated.sessions, 3);
    assert.equal(savings(db, range).treated.sessions, 2);
  });

  test("keeps its sums when the sessions of past days go", () => {
    const db = database();
    new Trials(db).add(trial("a", false, 100, 50));
    const before = savings(db, range);
    pruneSome(db, { days: 30, bodyDays: 0 }, NOON + 5 * DAY_MS);
    assert.equal(db.prepare("SELECT count(*) AS n FROM trial_session").get()!["n"], 0);
    assert.deepEqual(savings(db, range), before);
  });
});

test("a database of the version before gets the new sums, and keeps what it has", () => {
  const folder = mkdtempSync(join(tmpdir(), "migrate-"));
  try {
    const db = new DatabaseSync(join(folder, "ledger.db"));
    migrate(db, MIGRATIONS.slice(0, 2));
    db.exec("INSERT INTO decision (book, key, value, at) VALUES ('b', 'k', 'v', 1)");
    migrate(db);
    assert.equal(schemaVersion(db), MIGRATIONS.length);
    assert.equal(db.prepare("SELECT value FROM decision").get()!["value"], "v");
    assert.deepEqual(savings(db, { from: 0, to: Date.now() }).plugins, []);
    db.close();
  } finally {
    rmSync(folder, { recursive: true });
  }
});

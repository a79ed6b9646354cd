import assert from "node:assert/strict";
import { existsSync, lstatSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, test } from "node:test";
import { APPLICATION_ID, migrate, schemaVersion } from "../../plugins/store/migrate.ts";
import { pruneSome } from "../../plugins/store/prune.ts";
import { MIGRATIONS } from "../../plugins/store/schema.ts";
import type { SqliteLedger } from "../../plugins/store/sqlite-ledger.ts";
import { verify } from "../../plugins/store/verify.ts";
import { beginRow, endRow } from "../support/ledger-rows.ts";
import { newFile, openLedger, reservation, window } from "../support/open-ledger.ts";

describe("restarts", () => {
  test("rows that a dead process left open become interrupted; those of a living one do not", async () => {
    const file = newFile();
    const dead = beginRow();
    const living = beginRow();
    const done = beginRow();
    {
      await using first = await openLedger(file);
      first.ledger.begin(dead);
      first.ledger.begin(done);
      first.ledger.end(endRow(done));
    }
    await using hander = await openLedger(file, "boot-2");
    hander.ledger.begin(living);
    await hander.ledger.flush();
    // This process's number is the boot's: what tells the two apart is that the second one is not over.
    const db = new DatabaseSync(file, { timeout: 5_000 });
    // It was not heard of for long: the machine may have slept, and both wake at the same time.
    const slept = Date.now() - 600_000;
    db.prepare("UPDATE boot SET pid = ?, seen_at = ? WHERE uuid = 'boot-2'").run(process.ppid, slept);
    db.close();
    await using taker = await openLedger(file, "boot-3");
    const outcome = async ({ exchangeId: id }: { readonly exchangeId: string }) =>
      (await taker.ledger.request(id))?.outcome;
    while ((await outcome(dead)) === "open") await taker.ledger.flush();
    assert.equal(await outcome(dead), "interrupted");
    assert.equal(await outcome(done), "answered");
    assert.equal(await outcome(living), "open");
    const interrupted = await taker.ledger.request(dead.exchangeId);
    assert.equal(interrupted?.unpriced, true);
    assert.equal(interrupted?.costNanoUsd, undefined);
    hander.ledger.end(endRow(living));
    await hander.ledger.flush();
    assert.equal(await outcome(living), "answered");
    const totals = await taker.ledger.totals({ from: dead.at - 1_000, to: dead.at + 60_000 });
    assert.deepEqual(
      [totals.requests, totals.answered, totals.interrupted, totals.unpriced],
      [3, 2, 1, 1],
      "what an interrupted one cost is not known, which is not nothing",
    );
    // A process that was taken for dead, and is not, still ends its row.
    taker.ledger.end(endRow(dead));
    await taker.ledger.flush();
    const after = await taker.ledger.totals({ from: dead.at - 1_000, to: dead.at + 60_000 });
    assert.deepEqual([after.requests, after.answered, after.interrupted, after.unpriced], [3, 3, 0, 0]);
  });

  test("fault 28: a database of a newer TokenMan, or another program's, is refused and left alone", async () => {
    for (const prepare of [
      `PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = 99`,
      "CREATE TABLE recipes (id INTEGER)",
    ]) {
      const file = newFile();
      const db = new DatabaseSync(file);
      db.exec(`PRAGMA journal_mode = WAL; ${prepare}`);
      db.close();
      await assert.rejects(openLedger(file), { code: "TM_LEDGER_SCHEMA" });
      const again = new DatabaseSync(file, { readOnly: true });
      assert.equal(
        again.prepare("SELECT count(*) AS n FROM sqlite_schema WHERE name = 'request'").get()?.["n"],
        0,
      );
      again.close();
    }
  });

  test("an older schema is brought forward with its rows; a step that fails changes nothing", () => {
    const db = new DatabaseSync(newFile());
    migrate(db);
    assert.equal(schemaVersion(db), MIGRATIONS.length);
    db.exec("INSERT INTO text (kind, value) VALUES (0, 'web')");
    const next = "ALTER TABLE text ADD COLUMN seen INTEGER; UPDATE text SET seen = 1";
    assert.throws(() => migrate(db, [...MIGRATIONS, `${next}; SELECT * FROM nothing`]));
    assert.equal(schemaVersion(db), MIGRATIONS.length);
    migrate(db, [...MIGRATIONS, next]);
    assert.equal(schemaVersion(db), MIGRATIONS.length + 1);
    assert.deepEqual({ ...db.prepare("SELECT value, seen FROM text").get() }, { value: "web", seen: 1 });
    assert.throws(() => migrate(db), { code: "TM_LEDGER_SCHEMA" });
    db.close();
  });

  test("a database of version 7, which was in use for an hour, is brought forward, and so is one of version 6", () => {
    for (const version of [6, 7]) {
      const db = new DatabaseSync(newFile());
      migrate(db, MIGRATIONS.slice(0, 6));
      db.exec("INSERT INTO budget_window VALUES ('total', 'daily', 0, 1, 500)");
      if (version === 7) db.exec("CREATE TABLE hold (id INTEGER PRIMARY KEY); PRAGMA user_version = 7");
      migrate(db);
      assert.equal(schemaVersion(db), MIGRATIONS.length);
      assert.equal(db.prepare("SELECT used FROM budget_window").get()?.["used"], 500);
      const tables = db
        .prepare("SELECT name FROM sqlite_schema WHERE name IN ('hold', 'lease', 'holder')")
        .all();
      assert.deepEqual(tables.map(({ name }) => name).sort(), ["holder", "lease"]);
      db.close();
    }
  });

  test("fault 28: a file that is no database is set aside with what belongs to it, and said so", async () => {
    const file = newFile();
    writeFileSync(file, "this was a database once ".repeat(400));
    writeFileSync(`${file}-wal`, "x");
    await using open = await openLedger(file);
    open.ledger.begin(beginRow());
    await open.ledger.flush();
    assert.equal((await open.ledger.page({})).rows.length, 1);
    const names = readdirSync(join(file, ".."));
    assert.ok(
      names.some((name) => /^ledger\.db\.corrupt-\d{8}T\d{6}Z$/.test(name)),
      names.join(),
    );
    assert.ok(
      names.some((name) => /corrupt-\d{8}T\d{6}Z-wal$/.test(name)),
      names.join(),
    );
    assert.match(open.logged.map(({ message }) => message).join(), /set aside/);
  });

  test("fault 28: a database that turns out damaged while it is written is replaced, and the rows go on", async () => {
    const file = newFile();
    {
      await using first = await openLedger(file);
      for (let number = 0; number < 500; number++) first.ledger.begin(beginRow());
      await first.ledger.flush();
    }
    // The first page and the schema stay whole: only a write finds the damage.
    const { size } = statSync(file);
    const { open: openFile } = await import("node:fs/promises");
    const handle = await openFile(file, "r+");
    await handle.write(Buffer.alloc(size - 16_384, 0xa5), 0, size - 16_384, 16_384);
    await handle.close();
    await using second = await openLedger(file, "boot-2");
    const row = beginRow();
    second.ledger.begin(row);
    await second.ledger.flush();
    assert.equal((await second.ledger.request(row.exchangeId))?.outcome, "open");
    assert.equal(second.ledger.state.lost, 0);
    assert.match(second.logged.map(({ message }) => message).join(), /set aside/);
  });
});

describe("a disk that does not take it", () => {
  test("fault 28: no usable folder: rows wait or are counted, reservations are refused, and it goes on when it can", async () => {
    const folder = newFile();
    writeFileSync(folder, "a file where the folder should be");
    const file = join(folder, "ledger.db");
    await using open = await openLedger(file);
    const { ledger } = open;
    for (let number = 0; number < 2_100; number++) ledger.begin(beginRow());
    await assert.rejects(ledger.reserve(reservation(1, [window(5)])), { code: "TM_LEDGER_UNAVAILABLE" });
    await ledger.flush();
    assert.equal(ledger.state.lost, 100);
    assert.equal(ledger.state.waiting, 2_000);
    assert.match(ledger.state.failing ?? "", /ENOTDIR|EEXIST/);
    rmSync(folder);
    await ledger.flush();
    assert.equal((await ledger.reserve(reservation(1, [window(5)]))).ok, true);
    assert.deepEqual(ledger.state, { lost: 100, waiting: 0, failing: undefined });
    const [row] = await ledger.read<{ n: number }>("SELECT count(*) AS n FROM request");
    assert.equal(row?.n, 2_000);
  });

  test("fault 28: another program that holds the lock: reservations are refused, rows wait, nothing is lost", async () => {
    await using open = await openLedger();
    const { ledger, file } = open;
    // The ledger may be at work on it.
    const other = new DatabaseSync(file, { timeout: 10_000 });
    other.exec("BEGIN IMMEDIATE");
    const row = beginRow();
    ledger.begin(row);
    await assert.rejects(ledger.reserve(reservation(1, [window(5)])), { code: "TM_LEDGER_UNAVAILABLE" });
    assert.match(ledger.state.failing ?? "", /locked/);
    assert.equal(ledger.state.waiting, 1);
    other.exec("ROLLBACK");
    other.close();
    assert.equal((await ledger.reserve(reservation(1, [window(5)]))).ok, true);
    assert.equal((await ledger.request(row.exchangeId))?.outcome, "open");
    assert.deepEqual(ledger.state, { lost: 0, waiting: 0, failing: undefined });
  });
});

describe("retention", () => {
  test("removes what is too old, and leaves the sums by day", async () => {
    const file = newFile();
    const day = 86_400_000;
    const now = Date.now();
    const old = Array.from({ length: 1_200 }, (_, index) =>
      beginRow({ at: now - 40 * day + index, session: `s${index % 3}` }),
    );
    const fresh = beginRow({ session: "s0" });
    const [first] = old as [(typeof old)[number]];
    {
      await using open = await openLedger(file);
      for (const begin of [...old, fresh]) {
        open.ledger.begin(begin);
        open.ledger.end(
          endRow(begin, {
            error: "an error",
            bodies: { request: Buffer.from("x"), response: undefined, truncated: false },
          }),
        );
      }
      await open.ledger.flush();
    }
    const db = new DatabaseSync(file);
    const retention = { days: 30, bodyDays: 0 };
    assert.equal(pruneSome(db, retention, now), true, "a batch at a time");
    while (pruneSome(db, retention, now));
    const count = (table: string) => db.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.["n"];
    for (const table of ["request", "failure", "body"]) assert.equal(count(table), 1, table);
    assert.equal(db.prepare("SELECT count(*) AS n FROM text WHERE kind = 1").get()?.["n"], 1, "sessions");
    assert.equal(db.prepare("SELECT sum(requests) AS n FROM daily_total").get()?.["n"], 1_201);
    assert.deepEqual(verify(db), []);
    while (pruneSome(db, { days: 30, bodyDays: 1 }, now + 2 * day));
    assert.equal(count("body"), 0);
    assert.equal(count("request"), 1);
    db.close();
    await using open = await openLedger(file, "boot-2");
    assert.equal(await open.ledger.request(first.exchangeId), undefined);
    assert.deepEqual(
      (await open.ledger.page({ text: "error" })).rows.map(({ id }) => id),
      [fresh.exchangeId],
    );
  });
});

describe("a ledger whose start failed", { timeout: 60_000 }, () => {
  test("goes with what was made for it where it was only asked", async () => {
    const { ledger, file } = await openLedger();
    await ledger.used([window(1_000)]);
    await ledger.flush();
    assert.equal(existsSync(file), true);
    await ledger.close({ forget: true });
    assert.deepEqual(readdirSync(dirname(file)), []);
  });

  const uses: Record<string, (ledger: SqliteLedger) => unknown> = {
    "a row": (ledger) => ledger.begin(beginRow()),
    "a reservation": (ledger) => ledger.reserve(reservation(10, [window(1_000)])),
    "a decision": (ledger) => ledger.decisions.book("history").set("session-1", "cut at 5"),
    "a trial": (ledger) =>
      ledger.trial({
        at: Date.now(),
        session: "s",
        held: false,
        requests: 1,
        originalTokens: 1,
        paidTokens: 1,
      }),
  };
  for (const [what, use] of Object.entries(uses)) {
    test(`stays with ${what} in it`, async () => {
      const { ledger, file } = await openLedger();
      await use(ledger);
      await ledger.close({ forget: true });
      assert.equal(existsSync(file), true);
      using db = new DatabaseSync(file, { readOnly: true });
      assert.deepEqual(verify(db), []);
    });
  }

  test("leaves a link alone that led nowhere before", async () => {
    const file = newFile();
    symlinkSync(`${file}.elsewhere`, file);
    const { ledger } = await openLedger(file);
    await ledger.close({ forget: true });
    assert.equal(lstatSync(file).isSymbolicLink(), true);
  });
});

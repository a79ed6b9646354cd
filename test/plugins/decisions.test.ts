import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, describe, it } from "node:test";
import { DecisionMemory, type DecisionShelf, type Logger } from "@tokenman/plugin-sdk";
import { pruneDecisions } from "../../plugins/store/decision-rows.ts";
import { migrate } from "../../plugins/store/migrate.ts";
import { SqliteLedger } from "../../plugins/store/sqlite-ledger.ts";

const folder = mkdtempSync(join(tmpdir(), "decisions-"));
after(() => rmSync(folder, { recursive: true, force: true }));
let files = 0;
const newFile = (): string => join(folder, `${++files}.db`);

const log = Object.fromEntries(
  ["trace", "debug", "info", "warn", "error"].map((level) => [level, () => undefined]),
) as unknown as Logger;

async function openLedger(file: string): Promise<SqliteLedger & AsyncDisposable> {
  const ledger = await SqliteLedger.open(
    { file, bootId: "boot", synchronous: "normal", retention: { days: 0, bodyDays: 0 } },
    log,
  );
  return Object.assign(ledger, { [Symbol.asyncDispose]: () => ledger.close() });
}

describe("decisions", () => {
  it("are there at once, and after a restart", async () => {
    const file = newFile();
    {
      await using ledger = await openLedger(file);
      const book = ledger.decisions.book("history");
      assert.equal(await book.find("session-1"), undefined);
      book.set("session-1", "cut 4");
      book.set("session-1", "cut 9");
      ledger.decisions.book("other").set("session-1", "another plugin's");
      assert.equal(book.get("session-1"), "cut 9");
      assert.equal(book.find("session-1"), "cut 9", "without a promise");
    }
    await using ledger = await openLedger(file);
    const book = ledger.decisions.book("history");
    assert.equal(await book.find("session-1"), "cut 9", "before the first load has ended");
    assert.equal(book.get("session-1"), "cut 9");
    assert.equal(book.find("session-2"), undefined, "all is in memory, so nobody asks the disk");
    assert.equal(ledger.decisions.book("other").get("session-1"), "another plugin's");
  });

  it("survive a process that is killed once they were flushed", async () => {
    const file = newFile();
    await using first = await openLedger(file);
    first.decisions.book("b").set("k", "v");
    await first.decisions.flush();
    await using second = await openLedger(file);
    assert.equal(await second.decisions.book("b").find("k"), "v");
  });

  it("are found on disk when memory has forgotten them", async () => {
    const onDisk = new Map<string, string>();
    let asked = 0;
    const shelf: DecisionShelf = {
      async find(book, key) {
        asked++;
        return onDisk.get(`${book} ${key}`);
      },
      put: (book, key, value) => void onDisk.set(`${book} ${key}`, value),
      flush: () => Promise.resolve(),
    };
    const memory = new DecisionMemory(shelf, 10_000);
    memory.loadedAll();
    const book = memory.book("b");
    for (let index = 0; index < 1_000; index++) book.set(`key-${index}`, `value-${index}`);
    assert.ok(memory.size < 250, `bounded: ${memory.size}`);
    assert.equal(book.get("key-999"), "value-999");
    assert.equal(asked, 0);
    assert.equal(book.get("key-0"), undefined);
    assert.equal(await book.find("key-0"), "value-0");
    assert.equal(book.get("key-0"), "value-0");
    assert.equal(await book.find("key-unknown"), undefined);
    assert.equal(asked, 2);
  });

  it("made while the disk was asked stand", async () => {
    const gate = Promise.withResolvers<string | undefined>();
    const memory = new DecisionMemory({
      find: () => gate.promise,
      put() {},
      flush: () => Promise.resolve(),
    });
    const book = memory.book("b");
    const found = book.find("k");
    book.set("k", "new");
    gate.resolve("old");
    assert.equal(await found, "new");
  });

  it("too long for the disk stay in memory", async () => {
    const puts: string[] = [];
    const memory = new DecisionMemory({
      find: () => Promise.resolve(undefined),
      put: (_book, key) => void puts.push(key),
      flush: () => Promise.resolve(),
    });
    memory.book("b").set("long", "x".repeat(70_000));
    memory.book("b").set("short", "x");
    assert.deepEqual(puts, ["short"]);
    assert.equal(memory.book("b").get("long")?.length, 70_000);
  });

  it("work without anything behind them", async () => {
    const memory = new DecisionMemory();
    assert.equal(memory.book("b").find("k"), undefined);
    memory.book("b").set("k", "v");
    await memory.flush();
    assert.equal(memory.book("b").find("k"), "v");
    assert.equal(memory.book("b"), memory.book("b"));
  });

  it("that nobody used for 30 days go", () => {
    const db = new DatabaseSync(newFile());
    migrate(db);
    const put = db.prepare("INSERT INTO decision (book, key, value, at) VALUES ('b', ?, 'v', ?)");
    const now = Date.UTC(2026, 10, 24);
    for (let day = 0; day < 60; day++) put.run(`day-${day}`, now - day * 86_400_000);
    assert.equal(pruneDecisions(db, now), false);
    assert.equal(db.prepare("SELECT count(*) AS n FROM decision").get()?.["n"], 31);
    db.close();
  });
});

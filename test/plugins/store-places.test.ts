import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { Places } from "../../plugins/store/places.ts";
import { keyAt, msOf, writeUuid } from "../../plugins/store/time-key.ts";

const START = 1_760_000_000_000;

/** An id of a millisecond; those of different numbers differ only in their last word. */
function idAt(ms: number, number: number): string {
  const time = ms.toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-0000${number.toString(16).padStart(8, "0")}`;
}

test("each exchange has one key of its own time, whatever the order, over transactions, and beside another process", () => {
  const db = new DatabaseSync(":memory:");
  db.exec("CREATE TABLE request (id INTEGER PRIMARY KEY, uuid BLOB NOT NULL)");
  const add = db.prepare("INSERT INTO request (id, uuid) VALUES (?, ?)");
  const writers = [new Places(db), new Places(db)];
  const cells = new Float64Array(4);
  const keys = new Map<string, number>();
  const take = (places: Places, id: string): void => {
    writeUuid(id, cells, 0);
    const { own, free, uuid } = places.of(cells, 0);
    assert.equal(own, keys.get(id), id);
    if (own !== undefined) return;
    add.run(free, uuid);
    places.taken();
    keys.set(id, free);
  };
  for (let round = 0; round < 6; round++) {
    // Writers take turns: a transaction each.
    const places = writers[round % 2]!;
    places.forget();
    const ms = START + 3 * round;
    for (const [after, number] of [0, 0, 2, 1, 2, -3, 0, 2].entries()) {
      take(places, idAt(ms + number, 100 * round + after));
      take(places, idAt(ms + number, 100 * round + after));
    }
    for (const id of keys.keys()) take(places, id);
  }
  for (const [id, key] of keys)
    assert.equal(msOf(key), Number.parseInt(id.replace("-", "").slice(0, 12), 16));
  assert.equal(new Set(keys.values()).size, keys.size);
  db.close();
});

test("a millisecond that is full goes on in the next one's keys", () => {
  const db = new DatabaseSync(":memory:");
  db.exec("CREATE TABLE request (id INTEGER PRIMARY KEY, uuid BLOB NOT NULL)");
  const add = db.prepare("INSERT INTO request (id, uuid) VALUES (?, ?)");
  const places = new Places(db);
  const cells = new Float64Array(4);
  const take = (id: string): number => {
    writeUuid(id, cells, 0);
    const { free, uuid } = places.of(cells, 0);
    add.run(free, uuid);
    places.taken();
    return free;
  };
  for (let number = 0; number <= 1_024; number++)
    assert.equal(take(idAt(START, number)), keyAt(START) + number);
  assert.equal(take(idAt(START + 1, 0)), keyAt(START + 1) + 1);
  db.close();
});

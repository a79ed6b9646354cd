import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { TEXT_KINDS } from "../../plugins/store/codes.ts";
import type { Dictionary } from "../../plugins/store/dictionary.ts";
import { NameNumbers, ReceivedNames } from "../../plugins/store/names.ts";
import { eachRow, RowReceiver } from "../../plugins/store/received-rows.ts";
import { BEGIN } from "../../plugins/store/row-cells.ts";
import { RowPacker } from "../../plugins/store/row-packer.ts";
import { readUuid, uuidText, writeUuid } from "../../plugins/store/time-key.ts";
import { beginRow, endRow, exchangeId } from "../support/ledger-rows.ts";

const PROJECT = TEXT_KINDS.indexOf("project");
const MODEL = TEXT_KINDS.indexOf("model");

/** A dictionary that gives each text the next id, until it forgets. */
function dictionary() {
  const given: string[] = [];
  return {
    given,
    timesForgotten: 0,
    id(kind: string, text: string): number {
      return given.push(`${kind} ${text}`);
    },
  };
}

describe("names on their way", () => {
  test("travel once, each kind apart, and are asked of the database once", () => {
    const sending = new NameNumbers();
    const receiving = new ReceivedNames();
    const known = dictionary();
    const [web, model] = [sending.of(PROJECT, "web"), sending.of(MODEL, "web")];
    assert.notEqual(web, model);
    assert.ok(Number.isNaN(sending.of(PROJECT, undefined)));
    receiving.add(sending.take());
    for (const _ of [1, 2]) {
      assert.equal(receiving.id(web, known as unknown as Dictionary), 1);
      assert.equal(receiving.id(model, known as unknown as Dictionary), 2);
    }
    assert.deepEqual(known.given, ["project web", "model web"]);
    assert.equal(sending.of(PROJECT, "web"), web);
    assert.deepEqual(sending.take(), { anew: false, kinds: [], values: [] });
  });

  test("are asked again after a rollback, which took their ids", () => {
    const sending = new NameNumbers();
    const receiving = new ReceivedNames();
    const known = dictionary();
    const web = sending.of(PROJECT, "web");
    receiving.add(sending.take());
    assert.equal(receiving.id(web, known as unknown as Dictionary), 1);
    known.timesForgotten++;
    assert.equal(receiving.id(web, known as unknown as Dictionary), 2);
  });

  test("begin anew when there are too many, and once for a writer that is new", () => {
    const sending = new NameNumbers();
    for (let number = 0; number < 20_001; number++) sending.of(PROJECT, `project ${number}`);
    assert.equal(sending.take().anew, true);
    assert.equal(sending.of(PROJECT, "next"), 1);
    assert.deepEqual(sending.take(), { anew: true, kinds: [PROJECT], values: ["next"] });
    sending.again();
    assert.deepEqual(sending.take(), { anew: true, kinds: [PROJECT], values: ["next"] });
  });
});

describe("rows on their way", () => {
  test("an exchange that ends before it is handed over is one row, whatever came in between", () => {
    const packer = new RowPacker();
    const [first, second] = [beginRow(), beginRow()];
    const mark = packer.begin(first);
    const other = packer.begin(second);
    packer.end(endRow(first, { mark }));
    assert.equal(packer.count, 2);
    const work = eachRow(new RowReceiver().receive(packer.take()!, []));
    assert.deepEqual(
      work.map(({ kind }) => kind),
      ["begin", "begin"],
    );
    packer.end(endRow(second, { mark: other }));
    assert.equal(packer.count, 1);
    const [late] = eachRow(new RowReceiver().receive(packer.take()!, []));
    assert.equal(late?.kind, "end");
    assert.equal(packer.take(), undefined);
  });

  test("a mark of another ledger's, of a row that has ended, or none at all joins nothing", () => {
    const packer = new RowPacker();
    const rows = [beginRow(), beginRow()] as const;
    const marks = rows.map((row) => packer.begin(row));
    packer.end(endRow(rows[0], { mark: marks[1] }));
    packer.end(endRow(rows[1]));
    packer.end(endRow(rows[0], { mark: marks[0] }));
    packer.end(endRow(rows[0], { mark: marks[0] }));
    const kinds = eachRow(new RowReceiver().receive(packer.take()!, [])).map(({ kind }) => kind);
    assert.deepEqual(kinds, ["begin", "begin", "end", "end", "end"]);
  });

  test("beginnings travel in their order, in whatever order they end", () => {
    const packer = new RowPacker();
    const rows = Array.from({ length: 4 }, () => beginRow());
    const marks = rows.map((row) => packer.begin(row));
    for (const index of [2, 0, 3]) packer.end(endRow(rows[index]!, { mark: marks[index] }));
    const { cells, begun } = packer.take()!;
    assert.deepEqual(
      begun.map((at) => uuidText(readUuid(cells, at + BEGIN.ID))),
      rows.map((row) => row.exchangeId),
    );
    assert.deepEqual(
      begun.map((at) => cells[at + BEGIN.LINK] !== 0),
      [true, false, true, true],
    );
  });

  test("more than fits at first is kept whole", () => {
    const packer = new RowPacker();
    const rows = Array.from({ length: 2_000 }, () => beginRow());
    for (const row of rows) {
      packer.end(endRow(row, { mark: packer.begin(row) }));
    }
    const batch = packer.take()!;
    assert.deepEqual(
      batch.begun.map((at) => uuidText(readUuid(batch.cells, at + BEGIN.ID))),
      rows.map((row) => row.exchangeId),
    );
  });

  test("what is no UUID is not taken for one", () => {
    const cells = new Float64Array(4);
    const good = exchangeId();
    writeUuid(good.toUpperCase(), cells, 0);
    assert.equal(uuidText(readUuid(cells, 0)), good);
    for (const bad of [
      "",
      "not a uuid",
      good.slice(1),
      `${good}0`,
      good.replace("-", "0"),
      good.replace(/.$/, "g"),
    ]) {
      writeUuid(bad, cells, 0);
      assert.throws(() => readUuid(cells, 0), { code: "TM_LEDGER_QUERY" }, bad);
    }
  });
});

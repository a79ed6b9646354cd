import assert from "node:assert/strict";
import { appendFileSync, existsSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, test } from "node:test";
import type { BudgetWindow } from "@tokenman/plugin-sdk";
import { Reserver } from "../../plugins/store/reserver.ts";
import { beginRow, cost, endRow } from "../support/ledger-rows.ts";
import { newFile, openLedger, reservation, window } from "../support/open-ledger.ts";

describe("reservations", () => {
  test("200 at once against a limit that fits 10: ten are granted, and never more is used than the limit", async () => {
    await using open = await openLedger();
    const { ledger } = open;
    const limit = window(1_050);
    const answers = await Promise.all(
      Array.from({ length: 200 }, () => ledger.reserve(reservation(100, [limit]))),
    );
    assert.equal(answers.filter(({ ok }) => ok).length, 10);
    assert.deepEqual(await ledger.used([limit]), [1_000]);
    for (const answer of answers) if (!answer.ok) assert.equal(answer.usedNanoUsd, 1_000);
  });

  test("are all or nothing over several windows, and settle exactly, once", async () => {
    await using open = await openLedger();
    const { ledger } = open;
    const total = window(1_000);
    const web = window(300, "project:web");
    const first = reservation(200, [total, web]);
    assert.deepEqual(await ledger.reserve(first), { ok: true, usedNanoUsd: [200, 200] });
    assert.deepEqual(await ledger.reserve(first), { ok: true, usedNanoUsd: [200, 200] }, "asked again");
    const second = reservation(150, [total, web]);
    const refused = await ledger.reserve(second);
    assert.deepEqual(refused, { ok: false, window: web, usedNanoUsd: 200 });
    assert.deepEqual(await ledger.used([total, web]), [200, 200]);
    await ledger.settle(first.id, 70, Date.now());
    await ledger.settle(first.id, 99_999, Date.now());
    await ledger.settle("unknown", 5, Date.now());
    assert.deepEqual(await ledger.used([total, web]), [70, 70]);
    assert.deepEqual(await ledger.reserve(second), refused, "answered as the first time");
    assert.deepEqual(await ledger.reserve(reservation(230, [total, web])), {
      ok: true,
      usedNanoUsd: [300, 300],
    });
  });

  test("a limit that is set at noon counts the morning", async () => {
    await using open = await openLedger();
    const { ledger } = open;
    const begin = beginRow({ project: "web" });
    ledger.begin(begin);
    ledger.end(endRow(begin));
    assert.deepEqual(
      await ledger.used([
        window(1),
        window(1, "project:web"),
        window(1, "provider:anthropic"),
        window(1, "project:x"),
      ]),
      [cost.total, cost.total, cost.total, 0],
    );
    // A window of a zone that is half an hour off: its edges are counted from the rows.
    const from = begin.at - 1_800_000;
    const odd: BudgetWindow = { ...window(1), from, to: from + 3_600_000 };
    assert.deepEqual(await ledger.used([odd, { ...odd, scope: "model:claude-sonnet-4-5" }]), [
      cost.total,
      cost.total,
    ]);
  });

  test("what is reserved stays spent over a restart, and can still be settled", async () => {
    const file = newFile();
    const limit = window(1_000);
    const open = reservation(600, [limit]);
    {
      await using first = await openLedger(file);
      assert.equal((await first.ledger.reserve(open)).ok, true);
    }
    await using second = await openLedger(file, "boot-2");
    assert.deepEqual(await second.ledger.used([limit]), [600]);
    assert.equal((await second.ledger.reserve(reservation(500, [limit]))).ok, false);
    await second.ledger.settle(open.id, 10, Date.now());
    assert.deepEqual(await second.ledger.used([limit]), [10]);
  });

  test("the same one asked for twice at once is one", async () => {
    await using open = await openLedger();
    const { ledger } = open;
    const limit = window(1_000);
    const both = reservation(600, [limit]);
    const granted = { ok: true, usedNanoUsd: [600] };
    assert.deepEqual(await Promise.all([ledger.reserve(both), ledger.reserve(both)]), [granted, granted]);
    assert.deepEqual(await ledger.used([limit]), [600]);
  });

  test("a limit that was lowered holds at once, and room that was given back is there again", async () => {
    await using open = await openLedger();
    const { ledger } = open;
    const first = reservation(600, [window(1_000_000)]);
    await ledger.reserve(first);
    const lowered = window(1_000);
    const refused = { ok: false, window: lowered, usedNanoUsd: 600 };
    assert.deepEqual(await ledger.reserve(reservation(500, [lowered])), refused);
    await ledger.settle(first.id, 700, Date.now());
    assert.deepEqual(await ledger.used([lowered]), [700], "more than was reserved");
    assert.equal((await ledger.reserve(reservation(301, [lowered]))).ok, false);
    assert.equal((await ledger.reserve(reservation(300, [lowered]))).ok, true);
  });
});

/** What a process leaves that is killed: to a second ledger in this process, the boot of the first one is dead. */
describe("a process that dies", () => {
  const journals = (file: string): string[] =>
    readdirSync(dirname(file))
      .filter((name) => name.includes("-holds-"))
      .map((name) => join(dirname(file), name));

  test("has spent what it spent, and what it had reserved; what it was allowed beyond that is there again", async () => {
    await using first = await openLedger();
    const { file } = first;
    const limit = window(1_000_000);
    const settled = reservation(600, [limit]);
    const left = reservation(500, [limit]);
    await first.ledger.reserve(settled);
    await first.ledger.reserve(left);
    await first.ledger.settle(settled.id, 70, Date.now());
    assert.equal(journals(file).length, 1);
    // It died while it wrote a line.
    appendFileSync(journals(file)[0]!, '["hold","half a li');
    await using second = await openLedger(file, "boot-2");
    assert.deepEqual(await second.ledger.used([limit]), [570]);
    assert.equal((await second.ledger.reserve(reservation(999_430, [limit]))).ok, true);
    assert.equal((await second.ledger.reserve(reservation(1, [limit]))).ok, false);
    await second.ledger.settle(left.id, 20, Date.now());
    assert.equal((await second.ledger.reserve(reservation(480, [limit]))).ok, true);
    assert.equal(journals(file).length, 1, "the dead one's is gone");
  });

  test("has spent all it was allowed where its journal is lost", async () => {
    await using first = await openLedger();
    const limit = window(1_000_000);
    await first.ledger.reserve(reservation(600, [limit]));
    for (const journal of journals(first.file)) rmSync(journal);
    await using second = await openLedger(first.file, "boot-2");
    const [used] = await second.ledger.used([limit]);
    assert.ok(used! > 600 && used! <= 1_000_000, String(used));
    assert.equal((await second.ledger.reserve(reservation(1_000_000 - used!, [limit]))).ok, true);
  });

  test("is counted exactly after thousands of reservations, of which its journal forgot the first", async () => {
    await using first = await openLedger();
    const { ledger, file } = first;
    const limits = [window(1e12), window(1e12, "project:web")];
    const [old, late] = [reservation(1_000, limits), reservation(2_000, limits)];
    await ledger.reserve(old);
    const opening = journals(file);
    let settled = 0;
    while (existsSync(opening[0]!)) {
      const some = Array.from({ length: 500 }, () => reservation(100, limits));
      await Promise.all(some.map((each) => ledger.reserve(each)));
      await Promise.all(some.map(({ id }) => ledger.settle(id, 30, Date.now())));
      settled += some.length;
    }
    await ledger.reserve(late);
    assert.deepEqual(await ledger.used(limits), [settled * 30 + 3_000, settled * 30 + 3_000]);
    await using second = await openLedger(file, "boot-2");
    assert.deepEqual(await second.ledger.used(limits), [settled * 30 + 3_000, settled * 30 + 3_000]);
    await second.ledger.settle(old.id, 0, Date.now());
    assert.deepEqual(await second.ledger.used(limits), [settled * 30 + 2_000, settled * 30 + 2_000]);
  });
});

test("a journal that cannot be written refuses, and keeps nothing reserved", async () => {
  const database = newFile();
  // What is written to that device finds no room.
  symlinkSync("/dev/full", `${database}-holds-full-1`);
  let used = 0;
  const reserver = new Reserver(
    {
      isFailing: false,
      isFlushed: false,
      beginning: () => undefined,
      rowsWritten: () => undefined,
      async allow(_holder, _journal, asks) {
        return asks.map(({ want }) => {
          used += want;
          return { used, granted: want };
        });
      },
      fold: async () => {},
      leave: async () => {},
      settleLeft: async () => {},
      used: async () => [used],
    },
    database,
    "full",
  );
  const limit = window(1_000);
  for (let each = 0; each < 3; each++)
    await assert.rejects(reserver.reserve(reservation(600, [limit])), { code: "TM_LEDGER_UNAVAILABLE" });
  assert.deepEqual(await reserver.used([limit]), [0]);
  await reserver.close();
});

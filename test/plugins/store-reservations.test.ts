import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { BudgetWindow } from "@tokenman/plugin-sdk";
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
});

import assert from "node:assert/strict";
import { copyFileSync } from "node:fs";
import { describe, test } from "node:test";
import type { BudgetWindow } from "@tokenman/plugin-sdk";
import { FakeClock } from "@tokenman/plugin-sdk/testkit";
import type { SqliteLedger } from "../../plugins/store/sqlite-ledger.ts";
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

  test("of one commit share a row, which goes with the last of them; what is settled stays settled", async () => {
    const file = newFile();
    const limit = window(1_000_000);
    const made = Array.from({ length: 70 }, () => reservation(100, [limit]));
    const rows = async ({ ledger }: { readonly ledger: SqliteLedger }): Promise<unknown> =>
      ledger.read("SELECT json_array_length(ids) AS ids FROM hold ORDER BY id");
    {
      await using open = await openLedger(file);
      const { ledger } = open;
      await Promise.all(made.map((each) => ledger.reserve(each)));
      assert.deepEqual(await rows(open), [{ ids: 32 }, { ids: 32 }, { ids: 6 }]);
      await Promise.all(made.slice(5).map(({ id }) => ledger.settle(id, 10, Date.now())));
      assert.deepEqual(await rows(open), [{ ids: 32 }]);
      assert.deepEqual(await ledger.used([limit]), [65 * 10 + 5 * 100]);
      // Its place is taken again.
      const again = reservation(1, [limit]);
      await ledger.reserve(again);
      assert.deepEqual(await rows(open), [{ ids: 32 }, { ids: 1 }]);
      await ledger.settle(again.id, 0, Date.now());
    }
    await using second = await openLedger(file, "boot-2");
    const { ledger } = second;
    for (const { id } of made) await ledger.settle(id, 20, Date.now());
    assert.deepEqual(await ledger.used([limit]), [65 * 10 + 5 * 20]);
    assert.deepEqual(await rows(second), []);
  });

  test("of two processes that overlap find no more room together than there is", async () => {
    const file = newFile();
    await using first = await openLedger(file);
    await using second = await openLedger(file, "boot-2");
    const limit = window(1_050);
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, number) =>
        (number % 2 === 0 ? first : second).ledger.reserve(reservation(100, [limit])),
      ),
    );
    assert.equal(answers.filter(({ ok }) => ok).length, 10);
    assert.deepEqual(await second.ledger.used([limit]), [1_000]);
  });

  test("an exchange that was still without a row when its process died gets one from its reservation", async () => {
    const file = newFile();
    const begin = beginRow({ project: "web", model: "claude-x", stream: true });
    {
      await using first = await openLedger(file);
      // Rows are gathered for a time that does not pass.
      using _clock = new FakeClock();
      first.ledger.begin(begin);
      await first.ledger.reserve(reservation(5, [window(10)], begin.exchangeId));
      // As if it had died here.
      copyFileSync(file, `${file}.dead`);
      copyFileSync(`${file}-wal`, `${file}.dead-wal`);
    }
    await using second = await openLedger(`${file}.dead`, "boot-2");
    const { ledger } = second;
    let found = await ledger.request(begin.exchangeId);
    while (found?.outcome !== "interrupted") found = await ledger.request(begin.exchangeId);
    const { id, at, project, model, stream, session, client, path } = found;
    assert.deepEqual(
      { id, at, project, model, stream, session, client, path },
      {
        id: begin.exchangeId,
        at: begin.at,
        project: "web",
        model: "claude-x",
        stream: true,
        session: begin.session,
        client: begin.client,
        path: begin.path,
      },
    );
    assert.deepEqual(await ledger.used([window(10)]), [5]);
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

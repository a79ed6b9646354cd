import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { LedgerFilter } from "@tokenman/plugin-sdk";
import { uuidBytes } from "../../plugins/store/time-key.ts";
import { attemptRow, beginRow, endRow } from "../support/ledger-rows.ts";
import { openLedger } from "../support/open-ledger.ts";

describe("pages", () => {
  test("walk from the newest to the oldest, each exchange once, while new ones come", async () => {
    await using open = await openLedger();
    const { ledger } = open;
    const now = Date.now();
    const ids: string[] = [];
    // Many in one millisecond, and a clock that jumps back in between.
    for (let number = 0; number < 230; number++) {
      const at = now - (number % 7 === 0 ? 60_000 : Math.floor(number / 50));
      const begin = beginRow({ at });
      ids.push(begin.exchangeId);
      ledger.begin(begin);
    }
    await ledger.flush();
    const seen: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await ledger.page({}, { limit: 50, ...(cursor !== undefined && { cursor }) });
      seen.push(...page.rows.map(({ id }) => id));
      cursor = page.next;
      ledger.begin(beginRow({ at: now + 1_000 }));
      await ledger.flush();
    } while (cursor !== undefined);
    assert.equal(new Set(seen).size, seen.length);
    assert.deepEqual(seen.toSorted(), ids.toSorted());
    const times = seen.map((id) => uuidBytes(id).readUIntBE(0, 6));
    assert.deepEqual(
      times,
      times.toSorted((left, right) => right - left),
    );
  });

  test("filter by each column, by pairs of them, and by words of the error", async () => {
    await using open = await openLedger();
    const { ledger } = open;
    const now = Date.now();
    const one = beginRow({ at: now - 5_000, project: "web", session: "s1" });
    const two = beginRow({ at: now - 4_000, project: "api", model: "gpt-5" });
    const three = beginRow({ at: now - 3_000, project: "web", model: "gpt-5", session: "s3" });
    const four = beginRow({ at: now - 2_000, project: "api" });
    for (const row of [one, two, three, four]) ledger.begin(row);
    ledger.end(endRow(one));
    ledger.end(
      endRow(two, {
        provider: "openai",
        attempts: [attemptRow({ provider: "openai", model: "gpt-5" })],
        outcome: { status: 529 },
        error: 'overloaded_error: "Overloaded", try later',
      }),
    );
    ledger.end(
      endRow(three, {
        provider: undefined,
        attempts: [],
        outcome: { kind: "refused", status: 429, code: "TM_LEDGER_UNAVAILABLE" },
        error: "the budget is spent",
      }),
    );
    await ledger.flush();
    const found = async (filter: LedgerFilter): Promise<number[]> =>
      (await ledger.page(filter)).rows.map(
        ({ id }) => [one, two, three, four].findIndex((row) => row.exchangeId === id) + 1,
      );
    assert.deepEqual(await found({}), [4, 3, 2, 1]);
    assert.deepEqual(await found({ project: "web" }), [3, 1]);
    assert.deepEqual(await found({ project: "web", model: "gpt-5" }), [3]);
    assert.deepEqual(await found({ model: "gpt-5" }), [3, 2]);
    assert.deepEqual(await found({ session: "s3" }), [3]);
    assert.deepEqual(await found({ provider: "openai" }), [2]);
    assert.deepEqual(await found({ provider: "openai", project: "web" }), []);
    assert.deepEqual(await found({ status: 200 }), [1]);
    assert.deepEqual(await found({ status: 529 }), [2]);
    assert.deepEqual(await found({ status: 5 }), [2]);
    assert.deepEqual(await found({ status: 4 }), [3]);
    assert.deepEqual(await found({ outcome: "refused" }), [3]);
    assert.deepEqual(await found({ outcome: "open" }), [4]);
    assert.deepEqual(await found({ outcome: "answered" }), [2, 1]);
    assert.deepEqual(await found({ from: now - 4_000, to: now - 2_000 }), [3, 2]);
    assert.deepEqual(await found({ text: "budget" }), [3]);
    assert.deepEqual(await found({ text: "overloaded tr" }), [2]);
    assert.deepEqual(await found({ text: "budget", project: "api" }), []);
    assert.deepEqual(await found({ text: '" OR error MATCH "x' }), []);
    assert.deepEqual(await found({ text: "NEAR(a b) AND NOT c*" }), []);
    assert.deepEqual(await found({ project: "' OR 1=1 --" }), []);
  });

  test("a rare filter costs bounded work: pages may be empty and go on", async () => {
    await using open = await openLedger();
    const { ledger } = open;
    const now = Date.now();
    const rare = beginRow({
      at: now - 100_000,
      project: "often",
      stream: false,
      dialect: undefined,
      model: "rare",
    });
    ledger.begin(rare);
    ledger.end(
      endRow(rare, { provider: undefined, attempts: [], outcome: { kind: "answered", status: 302 } }),
    );
    for (let number = 0; number < 21_000; number++)
      ledger.begin(beginRow({ at: now - Math.floor(number / 500), project: "often" }));
    await ledger.flush();
    let pages = 0;
    let cursor: string | undefined;
    const found: string[] = [];
    do {
      const page = await ledger.page({ status: 302 }, cursor === undefined ? {} : { cursor });
      pages++;
      found.push(...page.rows.map(({ id }) => id));
      cursor = page.next;
    } while (cursor !== undefined);
    assert.deepEqual(found, [rare.exchangeId]);
    assert.ok(pages >= 2, "the walk was cut into pages");
  });

  test("that were cut short keep nobody from seeing what is newer", async () => {
    await using open = await openLedger();
    const { ledger } = open;
    for (let round = 0; round < 8; round++) {
      const begin = beginRow({ at: Date.now() + round });
      ledger.begin(begin);
      await ledger.flush();
      // Whichever thread is asked, some of them several times.
      const { rows } = await ledger.page({}, { limit: 1 });
      assert.equal(rows[0]?.id, begin.exchangeId, `round ${round}`);
    }
  });

  test("refuse what makes no sense", async () => {
    await using open = await openLedger();
    const { ledger } = open;
    const refused = (promise: Promise<unknown>) => assert.rejects(promise, { code: "TM_LEDGER_QUERY" });
    await refused(ledger.page({}, { cursor: "'; DROP TABLE request" }));
    await refused(ledger.page({}, { cursor: "zzzzzzzzzzzzz" }));
    await refused(ledger.page({}, { limit: 0 }));
    await refused(ledger.page({}, { limit: 1e9 }));
    await refused(ledger.page({ status: 42 }));
    await refused(ledger.page({ outcome: "lost" as "open" }));
    await refused(ledger.page({ text: " \0 * " }));
    await refused(ledger.page({ from: 5, to: 5 }));
    await refused(ledger.page({ from: Number.NaN }));
    await refused(ledger.totals({ from: 2, to: 1 }));
    await refused(ledger.totals({ from: 0, to: Number.POSITIVE_INFINITY }));
    await refused(ledger.history({ from: 0, to: 86_400_000 }, 7));
    await refused(ledger.history({ from: 0, to: 8e12 }, 3_600_000));
    await refused(ledger.groups("status" as "model", { from: 0, to: 1 }));
    await assert.rejects(ledger.read("DELETE FROM request"), { code: "TM_LEDGER_UNAVAILABLE" });
    assert.deepEqual((await ledger.page({})).rows, [], "the readers go on");
  });
});

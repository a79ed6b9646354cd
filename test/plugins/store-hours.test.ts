import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { describe, test } from "node:test";
import type { LedgerFilter } from "@tokenman/plugin-sdk";
import { Random } from "@tokenman/plugin-sdk/testkit";
import { page } from "../../plugins/store/page.ts";
import { attemptRow, beginRow, endRow } from "../support/ledger-rows.ts";
import { newFile, openLedger } from "../support/open-ledger.ts";

const HOUR_MS = 3_600_000;
const NOW = Date.now();

interface Known {
  readonly id: string;
  readonly at: number;
  readonly model: string;
  readonly sent: string | undefined;
  readonly provider: string | undefined;
}

/** Exchanges over two days: answered, renamed on the way, retried elsewhere, never sent, and open. */
async function filled(file: string, count: number): Promise<Known[]> {
  const random = new Random(11);
  const pick = (list: readonly string[]): string => list[random.below(list.length)]!;
  const known: Known[] = [];
  await using open = await openLedger(file);
  const { ledger } = open;
  for (let number = 0; number < count; number++) {
    const at = NOW - random.below(48) * HOUR_MS - random.below(3) * 60_000;
    const model = number === 7 ? "rare" : pick(["small", "large", "alias"]);
    const begin = beginRow({ at, model });
    const mark = ledger.begin(begin);
    if (random.chance(0.1)) {
      known.push({ id: begin.exchangeId, at, model, sent: undefined, provider: undefined });
      continue;
    }
    const sent = model === "alias" ? pick(["small", "large", "alias"]) : model;
    const provider = number === 9 ? "seldom" : pick(["one", "two"]);
    const isSent = random.chance(0.9);
    const attempts = [attemptRow({ at, provider, model: sent })];
    if (random.chance(0.2))
      attempts.unshift(attemptRow({ at, provider: "third", model: "other", result: { kind: "cancelled" } }));
    ledger.end(
      endRow(begin, { mark, provider: isSent ? provider : undefined, attempts: isSent ? attempts : [] }),
    );
    known.push({
      id: begin.exchangeId,
      at,
      model,
      sent: isSent ? sent : undefined,
      provider: isSent ? provider : undefined,
    });
  }
  await ledger.flush();
  return known;
}

describe("exchanges found by the hour", () => {
  const FILTERS: readonly LedgerFilter[] = [
    { model: "small" },
    { model: "alias" },
    { model: "rare" },
    { model: "other" },
    { provider: "one" },
    { provider: "seldom" },
    { provider: "third" },
    { provider: "two", model: "large" },
    { provider: "seldom", model: "rare" },
    { model: "small", from: NOW - 20 * HOUR_MS, to: NOW - 3 * HOUR_MS + 60_000 },
    { provider: "two", from: NOW - 30 * HOUR_MS - 90_000 },
    { model: "alias", outcome: "open" },
    { model: "large", project: "default" },
  ];

  test("are those that have the provider and the model, each once, the newest first, whatever the pages", async () => {
    const file = newFile();
    const known = await filled(file, 1_200);
    const db = new DatabaseSync(file, { readOnly: true });
    for (const filter of FILTERS) {
      const expected = known.filter(
        ({ at, model, sent, provider }) =>
          (filter.model === undefined || filter.model === model || filter.model === sent) &&
          (filter.provider === undefined || filter.provider === provider) &&
          (filter.outcome === undefined || (provider === undefined && sent === undefined)) &&
          at >= (filter.from ?? 0) &&
          at < (filter.to ?? Number.POSITIVE_INFINITY),
      );
      for (const limit of [3, 50]) {
        const found: string[] = [];
        let last = Number.POSITIVE_INFINITY;
        let cursor: string | undefined;
        do {
          const { rows, next } = page(db, filter, { limit, ...(cursor !== undefined && { cursor }) });
          for (const row of rows) {
            assert.ok(row.at <= last, "newest first");
            last = row.at;
            if (filter.outcome === undefined || row.outcome === filter.outcome) found.push(row.id);
          }
          cursor = next;
        } while (cursor !== undefined);
        const ids = expected.map(({ id }) => id);
        if (filter.outcome === undefined)
          assert.deepEqual([...found].sort(), ids.sort(), `${JSON.stringify(filter)} by ${limit}`);
        else assert.ok(found.every((id) => ids.includes(id)) && found.length > 0);
        assert.equal(new Set(found).size, found.length);
      }
    }
    db.close();
  });

  test("a pair that never met is known without a look at any exchange", async () => {
    const file = newFile();
    await filled(file, 300);
    const db = new DatabaseSync(file);
    // Whoever reads a row of the table now fails.
    db.exec("UPDATE request SET uuid = x'00', provider = 1, model = 1");
    assert.deepEqual(page(db, { provider: "seldom", model: "rare" }), { rows: [], next: undefined });
    db.close();
  });
});

import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { migrate, schemaVersion } from "../../plugins/store/migrate.ts";
import { page } from "../../plugins/store/page.ts";
import { record } from "../../plugins/store/record.ts";
import { MIGRATIONS } from "../../plugins/store/schema.ts";
import { keyAt, uuidBytes } from "../../plugins/store/time-key.ts";
import { VarintWriter } from "../../plugins/store/varint.ts";
import { verify } from "../../plugins/store/verify.ts";
import { beginRow, cost, endRow, exchangeId, usage } from "../support/ledger-rows.ts";
import { newFile, openLedger } from "../support/open-ledger.ts";

const OLD_VERSION = 4;
const AT = Date.now() - 60_000;
const TEXTS = [
  [0, "web"],
  [1, "session-1"],
  [2, "curl/8"],
  [3, "POST"],
  [4, "/v1/messages"],
  [5, "anthropic-messages"],
  [6, "claude-sonnet-4-5"],
  [7, "anthropic"],
  [8, "TM_UPSTREAM_RESET"],
  [9, "rules"],
  [10, "standard"],
] as const;

/** A database as version 4 wrote it: one exchange with two attempts, a saving and timings, and one that is open. */
function oldLedger(file: string): { readonly done: string; readonly open: string } {
  const db = new DatabaseSync(file);
  db.exec("PRAGMA journal_mode = WAL");
  migrate(db, MIGRATIONS.slice(0, OLD_VERSION));
  assert.equal(schemaVersion(db), OLD_VERSION);
  const ids = TEXTS.map(([kind, value]) =>
    Number(db.prepare("INSERT INTO text (kind, value) VALUES (?, ?)").run(kind, value).lastInsertRowid),
  );
  const [project, session, client, method, path, dialect, model, provider, code, plugin, tier] = ids as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  db.exec("INSERT INTO boot (uuid, host, pid, started_at, seen_at) VALUES ('old', 'elsewhere', 1, 0, 9e12)");
  const [done, open] = [exchangeId(AT), exchangeId(AT + 1)];
  const add = (table: string, row: Readonly<Record<string, string | number | Uint8Array | null>>): void => {
    const names = Object.keys(row);
    db.prepare(`INSERT INTO ${table} (${names.join(", ")}) VALUES (${names.map(() => "?").join(", ")})`).run(
      ...Object.values(row),
    );
  };
  const opening = { boot: 1, project, session, client, method, path, dialect, model, stream: 1 };
  const key = keyAt(AT);
  add("request", {
    id: key,
    uuid: uuidBytes(done),
    ...opening,
    outcome: 1,
    status: 200,
    origin: 0,
    provider,
    cache: 1,
    duration_us: 4_215_750,
    first_byte_us: 415_500,
    bytes_sent: 18_230,
    input: usage.inputTokens,
    cache_read: usage.cacheReadTokens,
    cache_write_5m: usage.cacheWrite5mTokens,
    cache_write_1h: 0,
    output: usage.outputTokens,
    reasoning: 0,
    cost: cost.total,
  });
  add("request", { id: keyAt(AT + 1), uuid: uuidBytes(open), ...opening, outcome: 0 });
  add("attempt", {
    request: key,
    number: 1,
    after_ms: 3,
    provider,
    model,
    result: 2,
    bytes_sent: 1,
    code,
    said: "ECONNRESET: read",
    duration_us: 1_500,
    estimated: 0,
  });
  add("attempt", {
    request: key,
    number: 2,
    after_ms: 20,
    provider,
    model,
    result: 0,
    body_end: 0,
    status: 200,
    head_us: 412_500,
    first_byte_us: 413_250,
    duration_us: 4_210_125,
    answered_model: model,
    tier,
    complete: 1,
    exact: 1,
    input: usage.inputTokens,
    cache_read: usage.cacheReadTokens,
    cache_write_5m: usage.cacheWrite5mTokens,
    cache_write_1h: 0,
    output: usage.outputTokens,
    reasoning: 0,
    cost_input: cost.input,
    cost_cache_read: cost.cacheRead,
    cost_cache_write_5m: cost.cacheWrite5m,
    cost_cache_write_1h: 0,
    cost_output: cost.output,
    cost_server_tools: 0,
    cost: cost.total,
    estimated: 0,
  });
  add("saving", { request: key, number: 0, kind: 2, plugin, tokens: -5, nano_usd: -900 });
  const taps = new VarintWriter().begin();
  for (const number of [plugin, 2, 1_500]) taps.add(number);
  add("timing", { request: key, taps: taps.bytes() });
  const hour = Math.floor(AT / 3_600_000);
  db.prepare("INSERT INTO hourly_total (at, requests, cost, output) VALUES (?, 1, ?, ?)").run(
    hour,
    cost.total,
    usage.outputTokens,
  );
  db.close();
  return { done, open };
}

test("what a version before wrote is read as it was, and new rows stand beside it", async () => {
  const file = newFile();
  const old = oldLedger(file);
  await using opened = await openLedger(file, "new");
  const { ledger } = opened;
  const begin = beginRow({ at: AT + 5 });
  ledger.begin(begin);
  ledger.end(endRow(begin));
  // The process that began it has gone over to this version's.
  const { at: _, ...closing } = beginRow({ exchangeId: old.open, at: AT + 1 });
  ledger.end(endRow({ ...closing, at: AT + 1 }));
  await ledger.flush();

  const done = (await ledger.request(old.done))!;
  assert.equal(done.attempts, 2);
  assert.equal(done.costNanoUsd, cost.total);
  assert.equal(done.outputTokens, usage.outputTokens);
  assert.equal(done.durationMs, 4_215.75);
  assert.equal(done.cache, "MISS");
  assert.deepEqual(
    done.tries.map(({ number, at, provider, result, durationMs, cost: paid }) => ({
      number,
      after: at - AT,
      provider,
      result,
      durationMs,
      paid,
    })),
    [
      {
        number: 1,
        after: 3,
        provider: "anthropic",
        result: { kind: "error", code: "TM_UPSTREAM_RESET", message: "ECONNRESET: read", bytesSent: true },
        durationMs: 1.5,
        paid: undefined,
      },
      {
        number: 2,
        after: 20,
        provider: "anthropic",
        result: { kind: "reply", status: 200, body: "complete" },
        durationMs: 4_210.125,
        paid: cost,
      },
    ],
  );
  assert.deepEqual(done.savings, [{ kind: "compression", plugin: "rules", tokens: -5, nanoUsd: -900 }]);
  assert.deepEqual(done.timings, [{ plugin: "rules", hook: "response", durationMs: 1.5 }]);
  assert.equal(done.tries[1]?.usage?.model, "claude-sonnet-4-5");

  const ended = (await ledger.request(old.open))!;
  assert.equal(ended.outcome, "answered");
  assert.equal(ended.project, "web");
  assert.equal(ended.tries.length, 1);
  assert.equal(ended.costNanoUsd, cost.total);
  const { rows } = await ledger.page({ provider: "anthropic" });
  assert.deepEqual(
    rows.map(({ id, attempts }) => ({ id, attempts })),
    [
      { id: begin.exchangeId, attempts: 1 },
      { id: old.open, attempts: 1 },
      { id: old.done, attempts: 2 },
    ],
  );
});

test("sums are checked against rows of either kind", async () => {
  const file = newFile();
  oldLedger(file);
  {
    await using opened = await openLedger(file, "new");
    const { ledger } = opened;
    // An hour before: the oldest one is not checked.
    const first = beginRow({ at: AT - 7_200_000 });
    for (const begin of [first, beginRow({ at: AT + 5 })]) {
      ledger.begin(begin);
      ledger.end(endRow(begin));
    }
    await ledger.flush();
  }
  const db = new DatabaseSync(file);
  assert.deepEqual(verify(db), []);
  db.exec("UPDATE request SET cost = cost + 1 WHERE detail IS NULL AND cost IS NOT NULL");
  assert.match(verify(db).join(), /the hour from .* nano-dollars/);
  db.close();
});

test("a detail of a later format is left out; the row is not", async () => {
  const file = newFile();
  const begin = beginRow();
  {
    await using opened = await openLedger(file);
    opened.ledger.begin(begin);
    opened.ledger.end(endRow(begin));
    await opened.ledger.flush();
  }
  const db = new DatabaseSync(file);
  db.exec("UPDATE request SET detail = x'7f0102'");
  assert.equal(page(db, {}).rows[0]?.id, begin.exchangeId);
  assert.deepEqual(record(db, begin.exchangeId)?.tries, []);
  assert.equal(record(db, begin.exchangeId)?.costNanoUsd, cost.total);
  db.close();
});

test("what the provider's prompt cache had of a turn is there after a restart, beside the taps", async () => {
  const file = newFile();
  const rows = (["tools", undefined, "hit", "provider"] as const).map((promptCache, index) => {
    const begin = beginRow({ at: AT + index });
    const timings = index === 2 ? [] : [{ plugin: "rules", hook: "request" as const, durationMs: 0.25 }];
    return { begin, timings, promptCache, end: endRow(begin, { promptCache, timings }) };
  });
  {
    await using opened = await openLedger(file);
    for (const { begin, end } of rows) {
      opened.ledger.begin(begin);
      opened.ledger.end(end);
    }
    await opened.ledger.flush();
  }
  await using again = await openLedger(file, "boot-2");
  for (const { begin, promptCache, timings } of rows) {
    const found = await again.ledger.request(begin.exchangeId);
    assert.equal(found?.promptCache, promptCache);
    assert.deepEqual(found?.timings, timings);
    assert.equal(found?.tries.length, 1);
  }
  const listed = await again.ledger.page({});
  assert.deepEqual(
    listed.rows.map(({ promptCache }) => promptCache),
    rows.map(({ promptCache }) => promptCache).reverse(),
  );
});

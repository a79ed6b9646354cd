import assert from "node:assert/strict";
import { statSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { describe, test } from "node:test";
import { addSaving, type Exchange, savingsOf } from "@tokenman/plugin-sdk";
import { keyAt, keyOfUuid, msOf, uuidBytes, uuidText } from "../../plugins/store/time-key.ts";
import { VarintReader, VarintWriter } from "../../plugins/store/varint.ts";
import { verify } from "../../plugins/store/verify.ts";
import { attemptRow, beginRow, cost, endRow, exchangeId, usage } from "../support/ledger-rows.ts";
import { openLedger } from "../support/open-ledger.ts";

describe("keys and numbers", () => {
  test("an exchange's key keeps the order of time, and gives its time back", () => {
    const ms = Date.UTC(2026, 10, 24, 10, 0, 0, 123);
    const id = exchangeId(ms);
    assert.equal(msOf(keyOfUuid(uuidBytes(id))), ms);
    assert.equal(uuidText(uuidBytes(id)), id);
    assert.ok(keyAt(ms) > keyAt(ms - 1) + 1_000, "a millisecond has room for many");
    assert.equal(keyAt(Number.MAX_VALUE), keyAt(2 ** 52), "an absurd clock is clamped");
    assert.throws(() => uuidBytes("'; DROP TABLE request; --"), { code: "TM_LEDGER_QUERY" });
  });
  test("varints survive the round trip", () => {
    const numbers = [0, 1, 127, 128, 300, 2 ** 31, 2 ** 40, Number.MAX_SAFE_INTEGER];
    const writer = new VarintWriter();
    for (const round of [numbers, [], numbers.concat(...Array(100).fill(numbers))]) {
      writer.begin();
      for (const number of round) writer.add(number);
      const reader = new VarintReader(writer.bytes());
      assert.deepEqual(
        round.map(() => reader.next()),
        round,
      );
      assert.ok(reader.atEnd);
    }
  });
  test("numbers that may be missing or negative, and texts, survive it, too; what is out of range is clamped", () => {
    const writer = new VarintWriter().begin();
    const signed = [0, -1, 1, 900, -900, 2 ** 31, -(2 ** 40), 2 ** 51];
    for (const number of signed) writer.addSigned(number);
    for (const number of [Number.NaN, -3, 2 ** 60, Number.POSITIVE_INFINITY]) writer.addSigned(number);
    const texts = [undefined, "", "naïve café → 1", "x".repeat(5_000)];
    for (const text of texts) writer.addText(text);
    for (const number of [Number.NaN, 0, 7, Number.MAX_SAFE_INTEGER]) writer.addMaybe(number);
    for (const number of [-5, Number.NaN, Number.POSITIVE_INFINITY]) writer.add(number);
    const reader = new VarintReader(writer.bytes());
    for (const number of signed) assert.equal(reader.signed(), number);
    assert.deepEqual(
      [1, 2, 3, 4].map(() => reader.signed()),
      [null, -3, 2 ** 51, 2 ** 51],
    );
    for (const text of texts) assert.equal(reader.text(), text ?? null);
    assert.deepEqual(
      [1, 2, 3, 4].map(() => reader.maybe()),
      [null, 0, 7, Number.MAX_SAFE_INTEGER],
    );
    assert.deepEqual(
      [1, 2, 3].map(() => reader.next()),
      [0, 0, 2 ** 53],
    );
    assert.ok(reader.atEnd);
    assert.equal(reader.next(), 0, "behind the end there are zeros, and no crash");
  });
});

describe("store", () => {
  test("keeps an exchange with all that is known of it", async () => {
    await using open = await openLedger();
    const { ledger } = open;
    const begin = beginRow({ project: "web" });
    const failed = attemptRow({
      result: { kind: "error", code: "TM_UPSTREAM_RESET", message: "ECONNRESET: read", bytesSent: true },
      provider: "primary",
      at: begin.at + 3,
      headMs: undefined,
      firstByteMs: undefined,
      usage: undefined,
      cost: undefined,
      unpriced: "the reply never came",
    });
    const good = attemptRow({ number: 2, at: begin.at + 40, provider: "backup", model: "claude-opus-4-1" });
    const skipped = attemptRow({
      number: 3,
      at: begin.at + 41,
      result: { kind: "skipped", by: "breaker", reason: "open" },
      headMs: undefined,
      firstByteMs: undefined,
      durationMs: 0,
      usage: { ...usage, source: "estimate", complete: false, serverTools: { web_search_requests: 2 } },
      estimated: true,
    });
    const savings = [
      { kind: "provider-cache", plugin: "provider", tokens: 0, nanoUsd: 129_600_000 },
      { kind: "compression", plugin: "rules", tokens: -5, nanoUsd: -900 },
      { kind: "compression", plugin: "history", tokens: 100, nanoUsd: undefined },
    ] as const;
    const timings = [
      { plugin: "recorder", hook: "request", durationMs: 0.25 },
      { plugin: "router", hook: "response", durationMs: 1.5 },
    ] as const;
    const bodies = {
      request: Buffer.from('{"a":1}'.repeat(500)),
      response: Buffer.from("hé"),
      truncated: true,
    };
    ledger.begin(begin);
    ledger.end(
      endRow(begin, {
        provider: "backup",
        attempts: [failed, good, skipped],
        savings,
        timings,
        bodies,
        error: "something went wrong",
        outcome: { kind: "partial", code: "TM_UPSTREAM_CUT", message: "cut" },
      }),
    );
    await ledger.flush();
    const found = await ledger.request(begin.exchangeId);
    assert.deepEqual(found, {
      id: begin.exchangeId,
      at: begin.at,
      project: "web",
      session: begin.session,
      client: begin.client,
      method: "POST",
      path: begin.path,
      dialect: begin.dialect,
      model: begin.model,
      sentModel: "claude-opus-4-1",
      provider: "backup",
      stream: true,
      outcome: "partial",
      status: 200,
      origin: "provider",
      code: "TM_UPSTREAM_CUT",
      error: "something went wrong",
      cache: "MISS",
      durationMs: 4_215.75,
      firstByteMs: 415.5,
      bytesSent: 18_230,
      attempts: 3,
      inputTokens: 24,
      cacheReadTokens: 96_000,
      cacheWrite5mTokens: 2_048,
      cacheWrite1hTokens: 0,
      outputTokens: 700,
      reasoningTokens: 0,
      costNanoUsd: 2 * cost.total,
      estimated: true,
      unpriced: true,
      tries: [failed, good, skipped],
      savings,
      timings,
      bodies,
    });
    assert.equal(await ledger.request(exchangeId()), undefined);
    assert.equal(await ledger.request("nonsense"), undefined);
    assert.equal(statSync(open.file).mode & 0o777, 0o600);
    const totals = await ledger.totals({ from: begin.at - 1_000, to: begin.at + 1_000 });
    assert.equal(totals.requests, 1);
    assert.equal(totals.partial, 1);
    assert.equal(totals.attempts, 3);
    assert.equal(totals.cost, 2 * cost.total);
    assert.equal(totals.costEstimated, cost.total);
    assert.equal(totals.unpriced, 1);
    assert.equal(totals.savedProviderCache, 129_600_000);
    assert.equal(totals.lostCompression, 900);
    assert.equal(totals.savedTokens, 95);
    const groups = await ledger.groups("provider", { from: begin.at, to: begin.at + 1 });
    assert.deepEqual(
      groups.map(({ name, requests, attempts, cost: spent }) => ({ name, requests, attempts, cost: spent })),
      [
        { name: "backup", requests: 1, attempts: 1, cost: cost.total },
        { name: "anthropic", requests: 0, attempts: 1, cost: cost.total },
        { name: "primary", requests: 0, attempts: 1, cost: 0 },
      ],
    );
  });

  test("takes a row once, whatever comes twice or for no row", async () => {
    await using open = await openLedger();
    const { ledger } = open;
    const begin = beginRow();
    const end = endRow(begin);
    for (const _ of [1, 2]) {
      ledger.begin(begin);
      ledger.end(end);
    }
    ledger.end(endRow(beginRow()));
    ledger.end(endRow(begin, { outcome: { kind: "failed", status: 500 } }));
    await ledger.flush();
    const page = await ledger.page({});
    assert.equal(page.rows.length, 1);
    assert.equal(page.rows[0]?.outcome, "answered");
    const totals = await ledger.totals({ from: begin.at, to: begin.at + 1 });
    assert.equal(totals.requests, 1);
    assert.equal(totals.cost, cost.total);
    assert.deepEqual(ledger.state, { lost: 0, waiting: 0, failing: undefined });
  });

  test("one impossible row does not take the others with it", async () => {
    await using open = await openLedger();
    const { ledger, logged } = open;
    const good = beginRow();
    ledger.begin(beginRow({ exchangeId: "not a uuid" }));
    ledger.begin(good);
    await ledger.flush();
    assert.deepEqual(
      (await ledger.page({})).rows.map(({ id, outcome }) => ({ id, outcome })),
      [{ id: good.exchangeId, outcome: "open" }],
    );
    assert.equal(ledger.state.lost, 1);
    assert.match(logged.map(({ message }) => message).join(), /refuses a row/);
  });

  test("absurd figures are clamped, never a crash", async () => {
    await using open = await openLedger();
    const { ledger } = open;
    const begin = beginRow({ at: 0, exchangeId: exchangeId(0), project: "p".repeat(10_000), path: "/\0'\"" });
    ledger.begin(begin);
    ledger.end(
      endRow(begin, {
        attempts: [attemptRow({ at: -1, durationMs: -5, usage: { ...usage, inputTokens: 1e300 } })],
        outcome: { durationMs: Number.POSITIVE_INFINITY, bytesSent: Number.NaN },
      }),
    );
    await ledger.flush();
    const found = await ledger.request(begin.exchangeId);
    assert.equal(found?.inputTokens, Number.MAX_SAFE_INTEGER);
    assert.equal(found?.durationMs, undefined);
    assert.equal(found?.project.length, 200);
    assert.equal(ledger.state.lost, 0);
  });

  test("tells those who watch", async () => {
    await using open = await openLedger();
    const { ledger } = open;
    const seen: string[] = [];
    const stop = ledger.watch(({ kind, row }) => void seen.push(`${kind} ${row.exchangeId}`));
    const begin = beginRow();
    ledger.begin(begin);
    ledger.end(endRow(begin));
    stop();
    ledger.begin(beginRow());
    assert.deepEqual(seen, [`begin ${begin.exchangeId}`, `end ${begin.exchangeId}`]);
  });

  test("a name that clients choose freely does not fill the database", async () => {
    await using open = await openLedger();
    const { ledger } = open;
    for (let number = 0; number < 10_050; number++) ledger.begin(beginRow({ project: `project-${number}` }));
    await ledger.flush();
    const [row] = await ledger.read<{ n: number }>("SELECT count(*) AS n FROM text WHERE kind = 0");
    assert.equal(row?.n, 10_001);
    assert.ok((await ledger.page({ project: "(other)" })).rows.length > 40);
  });
});

describe("sums", () => {
  test("count each request once, as what it ended as", async () => {
    await using open = await openLedger();
    const { ledger } = open;
    const ends = [
      { kind: "refused", status: 429 },
      { kind: "aborted", status: 499 },
      { kind: "failed", status: 500 },
      { kind: "answered", status: 529 },
      { kind: "answered", status: 200 },
    ] as const;
    for (const outcome of ends) {
      const begin = beginRow({});
      ledger.begin(begin);
      ledger.end(endRow(begin, { outcome }));
    }
    await ledger.flush();
    const day = 86_400_000;
    const sums = await ledger.totals({ from: Date.now() - day, to: Date.now() + day });
    const { requests, answered, refused, aborted, failed, errors } = sums;
    assert.deepEqual(
      { requests, answered, refused, aborted, failed, errors },
      { requests: 5, answered: 2, refused: 1, aborted: 1, failed: 1, errors: 1 },
    );
  });

  test("agree with the rows over minutes, hours and days, by every name", async () => {
    await using open = await openLedger();
    const { ledger, file } = open;
    const day = 86_400_000;
    const today = Math.floor(Date.now() / day) * day;
    const begins = [
      today - 2 * day + 60_000,
      today - 2 * day + 23 * 3_600_000,
      today - day - 1,
      today - day,
    ].map((at, index) => beginRow({ at, project: index % 2 === 0 ? "even" : "odd" }));
    for (const begin of begins) {
      ledger.begin(begin);
      ledger.end(endRow(begin));
    }
    await ledger.flush();
    const sums = async (from: number, to: number, project?: string): Promise<number> =>
      (await ledger.totals({ from, to }, project === undefined ? {} : { project })).requests;
    assert.equal(await sums(today - 10 * day, today + day), 4);
    assert.equal(await sums(today - 2 * day, today - day), 3);
    assert.equal(await sums(today - 2 * day + 3_600_000, today - day + 3_600_000), 3);
    assert.equal(await sums(today - 2 * day, today, "even"), 2);
    assert.equal(await sums(today - 2 * day, today, "nobody"), 0);
    const daily = await ledger.history({ from: today - 3 * day, to: today + day }, day);
    assert.deepEqual(
      daily.map(({ at, requests, cost: spent }) => [at, requests, spent]),
      [
        [today - 2 * day, 3, 3 * cost.total],
        [today - day, 1, cost.total],
      ],
    );
    // A day of a zone five hours west.
    const west = await ledger.history(
      { from: today - 3 * day + 5 * 3_600_000, to: today + 5 * 3_600_000 },
      day,
    );
    assert.deepEqual(
      west.map(({ at, requests }) => [at, requests]),
      [
        [today - 3 * day + 5 * 3_600_000, 1],
        [today - 2 * day + 5 * 3_600_000, 3],
      ],
    );
    const hours = await ledger.history({ from: today - 2 * day, to: today }, 3_600_000, { project: "odd" });
    assert.deepEqual(
      hours.map(({ at }) => at),
      [today - 2 * day + 23 * 3_600_000, today - day],
    );
    const now = beginRow();
    ledger.begin(now);
    ledger.end(endRow(now));
    await ledger.flush();
    const minutes = await ledger.history({ from: now.at - 600_000, to: now.at + 60_000 }, 60_000);
    assert.deepEqual(
      minutes.map(({ requests }) => requests),
      [1],
    );
    const db = new DatabaseSync(file, { readOnly: true });
    assert.deepEqual(verify(db), []);
    db.close();
  });
});

test("a request takes less than 700 bytes without bodies", async (t) => {
  await using open = await openLedger();
  const { ledger, file } = open;
  const plugins = ["recorder", "cache", "pii", "injection", "budget", "dedup", "rules", "router"];
  const timings = plugins.flatMap((plugin) =>
    (["request", "response"] as const).map((hook) => ({ plugin, hook, durationMs: 0.123 })),
  );
  const savings = [
    { kind: "provider-cache", plugin: "provider", tokens: 0, nanoUsd: 129_600_000 },
    { kind: "compression", plugin: "rules", tokens: 100, nanoUsd: 30_000 },
  ] as const;
  const count = 20_000;
  for (let number = 0; number < count; number++) {
    const begin = beginRow({
      at: Date.now() - (count - number) * 2,
      session: `session-${Math.floor(number / 20)}`,
      project: `p${number % 8}`,
    });
    ledger.begin(begin);
    ledger.end(
      endRow(begin, {
        timings,
        savings,
        ...(number % 20 === 0 && {
          error: "rate_limit_error: This request would exceed your rate limit",
          outcome: { status: 429 },
        }),
      }),
    );
    if (number % 1_000 === 0) await ledger.flush();
  }
  await ledger.close();
  const perRow = statSync(file).size / count;
  t.diagnostic(`${Math.round(perRow)} bytes a request`);
  assert.ok(perRow < 700, `${perRow} bytes`);
});

test("savings are left on the exchange for whoever records it", () => {
  const slots = new Map<symbol, unknown>();
  const exchange = {
    get: ({ key }: { key: symbol }) => slots.get(key),
    set: ({ key }: { key: symbol }, value: unknown) => slots.set(key, value),
  } as unknown as Exchange;
  assert.deepEqual(savingsOf(exchange), []);
  const saving = { kind: "compression", plugin: "rules", tokens: 1, nanoUsd: undefined } as const;
  addSaving(exchange, saving);
  addSaving(exchange, saving);
  assert.deepEqual(savingsOf(exchange), [saving, saving]);
});

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, describe, test } from "node:test";
import {
  addSaving,
  type BudgetWindow,
  type Exchange,
  type LedgerFilter,
  type Logger,
  type Reservation,
  savingsOf,
} from "@tokenman/plugin-sdk";
import { APPLICATION_ID, migrate, schemaVersion } from "../../plugins/store/migrate.ts";
import { pruneSome } from "../../plugins/store/prune.ts";
import { MIGRATIONS } from "../../plugins/store/schema.ts";
import { SqliteLedger } from "../../plugins/store/sqlite-ledger.ts";
import { keyAt, keyOfUuid, msOf, uuidBytes, uuidText } from "../../plugins/store/time-key.ts";
import { packVarints, unpackVarints } from "../../plugins/store/varint.ts";
import { verify } from "../../plugins/store/verify.ts";
import { attemptRow, beginRow, cost, endRow, exchangeId, usage } from "../support/ledger-rows.ts";

const folders: string[] = [];
after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

function newFile(): string {
  const folder = mkdtempSync(join(tmpdir(), "ledger-"));
  folders.push(folder);
  return join(folder, "ledger.db");
}

interface OpenLedger extends AsyncDisposable {
  readonly ledger: SqliteLedger;
  readonly file: string;
  readonly logged: {
    readonly level: string;
    readonly facts: Record<string, unknown>;
    readonly message: string;
  }[];
}

async function openLedger(file = newFile(), bootId = "boot-1"): Promise<OpenLedger> {
  const logged: OpenLedger["logged"] = [];
  const log = Object.fromEntries(
    ["trace", "debug", "info", "warn", "error"].map((level) => [
      level,
      (facts: Record<string, unknown>, message = "") => void logged.push({ level, facts, message }),
    ]),
  ) as unknown as Logger;
  const settings = { file, bootId, synchronous: "normal", retention: { days: 0, bodyDays: 0 } } as const;
  const ledger = await SqliteLedger.open(settings, log);
  return { ledger, file, logged, [Symbol.asyncDispose]: () => ledger.close() };
}

function window(limitNanoUsd: number, scope = "total"): BudgetWindow {
  const from = Math.floor(Date.now() / 3_600_000) * 3_600_000;
  return { scope, period: "hourly", from, to: from + 3_600_000, limitNanoUsd };
}
function reservation(
  nanoUsd: number,
  windows: readonly BudgetWindow[],
  id: string = exchangeId(),
): Reservation {
  return { id, exchangeId: id, at: Date.now(), nanoUsd, windows };
}

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
    assert.deepEqual(unpackVarints(packVarints(numbers)), numbers);
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

describe("sums", () => {
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

describe("restarts", () => {
  test("rows that a dead process left open become interrupted; those of a living one do not", async () => {
    const file = newFile();
    const dead = beginRow();
    const living = beginRow();
    const done = beginRow();
    {
      await using first = await openLedger(file);
      first.ledger.begin(dead);
      first.ledger.begin(done);
      first.ledger.end(endRow(done));
    }
    await using hander = await openLedger(file, "boot-2");
    hander.ledger.begin(living);
    await hander.ledger.flush();
    // This process's number is the boot's: what tells the two apart is that the second one is not over.
    const db = new DatabaseSync(file, { timeout: 5_000 });
    // It was not heard of for long: the machine may have slept, and both wake at the same time.
    const slept = Date.now() - 600_000;
    db.prepare("UPDATE boot SET pid = ?, seen_at = ? WHERE uuid = 'boot-2'").run(process.ppid, slept);
    db.close();
    await using taker = await openLedger(file, "boot-3");
    const outcome = async ({ exchangeId: id }: { readonly exchangeId: string }) =>
      (await taker.ledger.request(id))?.outcome;
    while ((await outcome(dead)) === "open") await taker.ledger.flush();
    assert.equal(await outcome(dead), "interrupted");
    assert.equal(await outcome(done), "answered");
    assert.equal(await outcome(living), "open");
    const interrupted = await taker.ledger.request(dead.exchangeId);
    assert.equal(interrupted?.unpriced, true);
    assert.equal(interrupted?.costNanoUsd, undefined);
    hander.ledger.end(endRow(living));
    await hander.ledger.flush();
    assert.equal(await outcome(living), "answered");
    const totals = await taker.ledger.totals({ from: dead.at - 1_000, to: dead.at + 60_000 });
    assert.deepEqual([totals.requests, totals.answered, totals.interrupted], [3, 2, 1]);
    // A process that was taken for dead, and is not, still ends its row.
    taker.ledger.end(endRow(dead));
    await taker.ledger.flush();
    const after = await taker.ledger.totals({ from: dead.at - 1_000, to: dead.at + 60_000 });
    assert.deepEqual([after.requests, after.answered, after.interrupted], [3, 3, 0]);
  });

  test("a database of a newer TokenMan, or another program's, is refused and left alone", async () => {
    for (const prepare of [
      `PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = 99`,
      "CREATE TABLE recipes (id INTEGER)",
    ]) {
      const file = newFile();
      const db = new DatabaseSync(file);
      db.exec(`PRAGMA journal_mode = WAL; ${prepare}`);
      db.close();
      await assert.rejects(openLedger(file), { code: "TM_LEDGER_SCHEMA" });
      const again = new DatabaseSync(file, { readOnly: true });
      assert.equal(
        again.prepare("SELECT count(*) AS n FROM sqlite_schema WHERE name = 'request'").get()?.["n"],
        0,
      );
      again.close();
    }
  });

  test("an older schema is brought forward with its rows; a step that fails changes nothing", () => {
    const db = new DatabaseSync(newFile());
    migrate(db);
    assert.equal(schemaVersion(db), MIGRATIONS.length);
    db.exec("INSERT INTO text (kind, value) VALUES (0, 'web')");
    const next = "ALTER TABLE text ADD COLUMN seen INTEGER; UPDATE text SET seen = 1";
    assert.throws(() => migrate(db, [...MIGRATIONS, `${next}; SELECT * FROM nothing`]));
    assert.equal(schemaVersion(db), MIGRATIONS.length);
    migrate(db, [...MIGRATIONS, next]);
    assert.equal(schemaVersion(db), MIGRATIONS.length + 1);
    assert.deepEqual({ ...db.prepare("SELECT value, seen FROM text").get() }, { value: "web", seen: 1 });
    assert.throws(() => migrate(db), { code: "TM_LEDGER_SCHEMA" });
    db.close();
  });

  test("a file that is no database is set aside with what belongs to it, and said so", async () => {
    const file = newFile();
    writeFileSync(file, "this was a database once ".repeat(400));
    writeFileSync(`${file}-wal`, "x");
    await using open = await openLedger(file);
    open.ledger.begin(beginRow());
    await open.ledger.flush();
    assert.equal((await open.ledger.page({})).rows.length, 1);
    const names = readdirSync(join(file, ".."));
    assert.ok(
      names.some((name) => /^ledger\.db\.corrupt-\d{8}T\d{6}Z$/.test(name)),
      names.join(),
    );
    assert.ok(
      names.some((name) => /corrupt-\d{8}T\d{6}Z-wal$/.test(name)),
      names.join(),
    );
    assert.match(open.logged.map(({ message }) => message).join(), /set aside/);
  });

  test("a database that turns out damaged while it is written is replaced, and the rows go on", async () => {
    const file = newFile();
    {
      await using first = await openLedger(file);
      for (let number = 0; number < 500; number++) first.ledger.begin(beginRow());
      await first.ledger.flush();
    }
    // The first page and the schema stay whole: only a write finds the damage.
    const { size } = statSync(file);
    const { open: openFile } = await import("node:fs/promises");
    const handle = await openFile(file, "r+");
    await handle.write(Buffer.alloc(size - 16_384, 0xa5), 0, size - 16_384, 16_384);
    await handle.close();
    await using second = await openLedger(file, "boot-2");
    const row = beginRow();
    second.ledger.begin(row);
    await second.ledger.flush();
    assert.equal((await second.ledger.request(row.exchangeId))?.outcome, "open");
    assert.equal(second.ledger.state.lost, 0);
    assert.match(second.logged.map(({ message }) => message).join(), /set aside/);
  });
});

describe("a disk that does not take it", () => {
  test("no usable folder: rows wait or are counted, reservations are refused, and it goes on when it can", async () => {
    const folder = newFile();
    writeFileSync(folder, "a file where the folder should be");
    const file = join(folder, "ledger.db");
    await using open = await openLedger(file);
    const { ledger } = open;
    for (let number = 0; number < 2_100; number++) ledger.begin(beginRow());
    await assert.rejects(ledger.reserve(reservation(1, [window(5)])), { code: "TM_LEDGER_UNAVAILABLE" });
    await ledger.flush();
    assert.equal(ledger.state.lost, 100);
    assert.equal(ledger.state.waiting, 2_000);
    assert.match(ledger.state.failing ?? "", /ENOTDIR|EEXIST/);
    rmSync(folder);
    await ledger.flush();
    assert.equal((await ledger.reserve(reservation(1, [window(5)]))).ok, true);
    assert.deepEqual(ledger.state, { lost: 100, waiting: 0, failing: undefined });
    const [row] = await ledger.read<{ n: number }>("SELECT count(*) AS n FROM request");
    assert.equal(row?.n, 2_000);
  });

  test("another program that holds the lock: reservations are refused, rows wait, nothing is lost", async () => {
    await using open = await openLedger();
    const { ledger, file } = open;
    const other = new DatabaseSync(file);
    other.exec("BEGIN IMMEDIATE");
    const row = beginRow();
    ledger.begin(row);
    await assert.rejects(ledger.reserve(reservation(1, [window(5)])), { code: "TM_LEDGER_UNAVAILABLE" });
    assert.match(ledger.state.failing ?? "", /locked/);
    assert.equal(ledger.state.waiting, 1);
    other.exec("ROLLBACK");
    other.close();
    assert.equal((await ledger.reserve(reservation(1, [window(5)]))).ok, true);
    assert.equal((await ledger.request(row.exchangeId))?.outcome, "open");
    assert.deepEqual(ledger.state, { lost: 0, waiting: 0, failing: undefined });
  });
});

describe("retention", () => {
  test("removes what is too old, and leaves the sums by day", async () => {
    const file = newFile();
    const day = 86_400_000;
    const now = Date.now();
    const old = Array.from({ length: 1_200 }, (_, index) =>
      beginRow({ at: now - 40 * day + index, session: `s${index % 3}` }),
    );
    const fresh = beginRow({ session: "s0" });
    const [first] = old as [(typeof old)[number]];
    {
      await using open = await openLedger(file);
      for (const begin of [...old, fresh]) {
        open.ledger.begin(begin);
        open.ledger.end(
          endRow(begin, {
            error: "an error",
            bodies: { request: Buffer.from("x"), response: undefined, truncated: false },
          }),
        );
      }
      await open.ledger.flush();
    }
    const db = new DatabaseSync(file);
    const retention = { days: 30, bodyDays: 0 };
    assert.equal(pruneSome(db, retention, now), true, "a batch at a time");
    while (pruneSome(db, retention, now));
    const count = (table: string) => db.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.["n"];
    for (const table of ["request", "attempt", "failure", "body"]) assert.equal(count(table), 1, table);
    assert.equal(db.prepare("SELECT count(*) AS n FROM text WHERE kind = 1").get()?.["n"], 1, "sessions");
    assert.equal(db.prepare("SELECT sum(requests) AS n FROM daily_total").get()?.["n"], 1_201);
    assert.deepEqual(verify(db), []);
    while (pruneSome(db, { days: 30, bodyDays: 1 }, now + 2 * day));
    assert.equal(count("body"), 0);
    assert.equal(count("request"), 1);
    db.close();
    await using open = await openLedger(file, "boot-2");
    assert.equal(await open.ledger.request(first.exchangeId), undefined);
    assert.deepEqual(
      (await open.ledger.page({ text: "error" })).rows.map(({ id }) => id),
      [fresh.exchangeId],
    );
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

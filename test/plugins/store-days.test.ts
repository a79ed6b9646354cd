import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { describe, test } from "node:test";
import { Calendar, type Ledger, type LedgerEnd } from "@tokenman/plugin-sdk";
import { apiCommands } from "../../plugins/api/commands.ts";
import { FIGURES } from "../../plugins/store/figures.ts";
import { recount } from "../../plugins/store/recount.ts";
import { attemptRow, beginRow, cost, endRow } from "../support/ledger-rows.ts";
import { startLedgered } from "../support/ledgered.ts";
import { newFile, openLedger } from "../support/open-ledger.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/** One exchange of that cost, in nano-dollars, begun at that moment. */
function add(ledger: Ledger, at: string | number, nanoUsd: number, project = "default"): void {
  const names = project === "default" ? {} : { provider: "elsewhere", model: "another" };
  const begin = beginRow({ at: typeof at === "number" ? at : Date.parse(at), project, ...names });
  ledger.begin(begin);
  const attempts = [attemptRow({ at: begin.at, ...names, cost: { ...cost, total: nanoUsd } })];
  ledger.end(endRow(begin, { attempts }));
}

/** Costs are powers of two, so that a sum tells which of them are in it. */
const AROUND_MIDNIGHTS = [
  ["2026-11-10T18:14:59.999Z", 1],
  ["2026-11-10T18:15:00.000Z", 2],
  ["2026-11-10T18:29:59.999Z", 4],
  ["2026-11-10T18:30:00.000Z", 8],
  ["2026-11-10T18:45:00.000Z", 16],
  ["2026-11-10T18:59:59.999Z", 32],
  ["2026-11-10T19:00:00.000Z", 64],
  ["2026-11-11T17:59:00.000Z", 128],
  ["2026-11-11T18:14:00.000Z", 256],
  ["2026-11-11T18:15:00.000Z", 512],
  ["2026-11-11T18:30:00.000Z", 1024],
] as const;
const WEEK = ["2026-11-08T00:00:00Z", "2026-11-14T00:00:00Z"] as const;

/** Days as they are there, worked out by hand: what a zone's day costs. */
const CASES = [
  // UTC+5:45: midnight is at 18:15 UTC.
  { zone: "Asia/Kathmandu", rows: AROUND_MIDNIGHTS, range: WEEK, days: { 10: 1, 11: 510, 12: 1536 } },
  // UTC+5:30: midnight is at 18:30 UTC.
  { zone: "Asia/Kolkata", rows: AROUND_MIDNIGHTS, range: WEEK, days: { 10: 7, 11: 1016, 12: 1024 } },
  { zone: "UTC", rows: AROUND_MIDNIGHTS, range: WEEK, days: { 10: 127, 11: 1920 } },
  // 1 November has 25 hours in New York: from 04:00 UTC to 05:00 UTC.
  {
    zone: "America/New_York",
    rows: [
      ["2026-11-01T03:59:59.999Z", 1],
      ["2026-11-01T04:00:00.000Z", 2],
      ["2026-11-02T04:30:00.000Z", 4],
      ["2026-11-02T05:00:00.000Z", 8],
    ],
    range: ["2026-10-30T12:00:00Z", "2026-11-03T12:00:00Z"],
    days: { 31: 1, 1: 6, 2: 8 },
  },
  // Clocks go forward by half an hour on Lord Howe: 4 October is from 13:30 UTC of the day before to 13:00 UTC.
  {
    zone: "Australia/Lord_Howe",
    rows: [
      ["2026-10-03T13:29:00.000Z", 1],
      ["2026-10-03T13:30:00.000Z", 2],
      ["2026-10-04T12:59:00.000Z", 4],
      ["2026-10-04T13:00:00.000Z", 8],
      ["2026-10-04T13:15:00.000Z", 16],
    ],
    range: ["2026-10-02T00:00:00Z", "2026-10-06T00:00:00Z"],
    days: { 3: 1, 4: 6, 5: 24 },
  },
] as const;

describe("days of a time zone", () => {
  for (const { zone, rows, range, days } of CASES) {
    for (const named of [false, true])
      test(`are exact in ${zone}${named ? ", of one project" : ""}`, async () => {
        await using tokenman = await startLedgered();
        for (const [at, nanoUsd] of rows) add(tokenman.ledger, at, nanoUsd);
        // Another project's, in the midst of an hour that is divided: counted where all are.
        const noise = Math.floor(Date.parse(rows[1][0]) / HOUR_MS) * HOUR_MS + HOUR_MS / 2 + 1;
        if (named) add(tokenman.ledger, noise, 4096, "other");
        await tokenman.ledger.flush();
        const query = new URLSearchParams({ since: range[0], until: range[1], step: "day", zone });
        if (named) query.set("project", "default");
        const reply = await fetch(`${tokenman.dashboard}/api/stats/history?${query}`);
        const { points, ...told } = (await reply.json()) as {
          zone: string;
          stepMs: null;
          points: { at: number; cost: { usd: number } }[];
        };
        assert.deepEqual([told.zone, told.stepMs], [zone, null]);
        const date = new Intl.DateTimeFormat("en", { timeZone: zone, day: "numeric" });
        const clock = new Intl.DateTimeFormat("en", {
          timeZone: zone,
          timeStyle: "medium",
          hourCycle: "h23",
        });
        const found = points.map(
          ({ at, cost: { usd } }) => [date.format(at), Math.round(usd * 1e9)] as const,
        );
        assert.deepEqual(Object.fromEntries(found), days);
        for (const { at } of points) assert.equal(clock.format(at), "00:00:00");
      });

    test(`are exact in ${zone} where there are no sums by minute`, async () => {
      const file = newFile();
      await using it = await openLedger(file);
      for (const [at, nanoUsd] of rows) add(it.ledger, at, nanoUsd);
      await it.ledger.flush();
      const bounds = boundsOf(zone, range);
      const before = await it.ledger.between(bounds);
      const db = new DatabaseSync(file);
      db.exec("DELETE FROM minutely_total");
      db.close();
      assert.deepEqual(await it.ledger.between(bounds), before);
      assert.deepEqual(
        before.map((point) => point.cost).sort((left, right) => left - right),
        Object.values(days).sort((left, right) => left - right),
      );
    });
  }

  test("as the command shows them, in the machine's own zone", async () => {
    await using tokenman = await startLedgered();
    const OFFSET_MS = 5.75 * HOUR_MS;
    const midnight = Math.floor((Date.now() + OFFSET_MS) / DAY_MS) * DAY_MS - OFFSET_MS - DAY_MS;
    add(tokenman.ledger, midnight - 1, 1e9);
    add(tokenman.ledger, midnight, 2e9);
    await tokenman.ledger.flush();
    const lines: string[] = [];
    const zone = process.env["TZ"];
    process.env["TZ"] = "Asia/Kathmandu";
    try {
      const stats = apiCommands.find(({ usage }) => usage === "stats")!;
      await stats.run!({
        args: [],
        options: { by: "day", since: "4d" },
        print: (line: string) => void lines.push(line),
        fetch: (path: string) => fetch(`${tokenman.dashboard}${path}`),
      } as unknown as Parameters<NonNullable<typeof stats.run>>[0]);
    } finally {
      if (zone === undefined) delete process.env["TZ"];
      else process.env["TZ"] = zone;
    }
    const dayOf = (at: number): string => new Date(at + OFFSET_MS).toISOString().slice(0, 10);
    assert.match(lines[0]!, /^DAY \(Asia\/Kat\w+\) /);
    assert.deepEqual(
      lines.slice(1).map((line) => [line.split(/ +/)[0], /\$([\d.]+)$/.exec(line.trimEnd())?.[1]]),
      [
        [dayOf(midnight - 1), "1.00"],
        [dayOf(midnight), "2.00"],
      ],
    );
  });

  test("are refused where they are not known any more, and where they make no sense", async () => {
    const file = newFile();
    await using it = await openLedger(file);
    add(it.ledger, "2026-11-10T18:14:00.000Z", 1);
    add(it.ledger, "2026-11-10T18:15:00.000Z", 2);
    add(it.ledger, "2026-11-12T18:15:00.000Z", 4);
    await it.ledger.flush();
    const db = new DatabaseSync(file);
    const bounds = boundsOf("Asia/Kathmandu", WEEK);
    const refused = (message: RegExp) =>
      assert.rejects(it.ledger.between(bounds), { code: "TM_LEDGER_QUERY", message });
    // Minutes and requests are gone, the hours are there.
    db.exec("DELETE FROM minutely_total");
    db.prepare("DELETE FROM request WHERE id < ?").run(Date.parse("2026-11-11T00:00:00Z") * 1024);
    await refused(/as far back as requests are kept/);
    // The hours are gone, too.
    db.exec(`DELETE FROM hourly_total WHERE at < ${Date.parse("2026-11-12T00:00:00Z") / HOUR_MS}`);
    await refused(/are kept from 2026-11-12T18:00:00.000Z on; further back there are days of UTC/);
    const range = { from: Date.parse(WEEK[0]), to: Date.parse(WEEK[1]) };
    await assert.rejects(it.ledger.history(range, HOUR_MS), { code: "TM_LEDGER_QUERY" });
    assert.equal((await it.ledger.history(range, DAY_MS)).length, 2);
    // A sum over what is left only as days is of whole days.
    const from = Date.parse("2026-11-10T18:15:00Z");
    const { cost: whole, from: since } = await it.ledger.totals({ from, to: range.to });
    assert.deepEqual([whole, since], [7, Date.parse("2026-11-10T00:00:00Z")]);
    db.close();
    for (const wrong of [
      [],
      [0],
      [0, 1],
      [0, 120_000, 60_000],
      Array.from({ length: 1_100 }, (_, at) => at * 60_000),
    ])
      await assert.rejects(it.ledger.between(wrong), { code: "TM_LEDGER_QUERY" });
  });

  test("a zone without days, a zone that is none, and too many days are a 400", async () => {
    await using tokenman = await startLedgered();
    for (const query of [
      "zone=Asia/Kathmandu",
      "step=1h&zone=Asia/Kathmandu",
      "step=day&zone=Mars/Olympus",
      "step=day&zone=",
      "step=day&range=all",
    ]) {
      const reply = await fetch(`${tokenman.dashboard}/api/stats/history?${query}`);
      assert.equal(reply.status, 400, query);
    }
  });
});

test("rows that are counted again make the rollups, whatever became of the exchanges", async () => {
  const file = newFile();
  await using it = await openLedger(file);
  const hour = Math.floor(Date.now() / HOUR_MS) * HOUR_MS - 5 * HOUR_MS;
  const ends: Partial<Omit<LedgerEnd, "outcome">>[] = [
    { cache: "HIT", attempts: [], provider: undefined },
    { cache: "COALESCED", attempts: [] },
    {
      savings: [
        { kind: "compression", plugin: "rules", tokens: 5, nanoUsd: 70 },
        { kind: "provider-cache", plugin: "provider", tokens: 0, nanoUsd: -30 },
        { kind: "response-cache", plugin: "cache", tokens: -2, nanoUsd: undefined },
      ],
    },
    {
      attempts: [
        attemptRow({
          provider: "one",
          result: { kind: "reply", status: 529, body: "complete" },
          usage: undefined,
          cost: undefined,
        }),
        attemptRow({ number: 2, provider: "two", model: "sent", estimated: true }),
        attemptRow({
          number: 3,
          provider: "two",
          result: { kind: "cancelled" },
          cost: undefined,
          unpriced: "no",
        }),
      ],
    },
  ];
  const kinds = ["answered", "aborted", "partial", "refused", "failed"] as const;
  for (let index = 0; index < 60; index++) {
    const begin = beginRow({
      at: hour + index * 59_000,
      project: ["a", "b"][index % 2]!,
      model: ["m", "sent", undefined][index % 3],
      stream: index % 4 > 1,
    });
    it.ledger.begin(begin);
    const outcome = {
      kind: kinds[index % 5]!,
      status: index % 7 === 0 ? 500 : 200,
      firstByteMs: index % 3 === 0 ? undefined : 12.5,
    };
    it.ledger.end(endRow(begin, { ...ends[index % ends.length], outcome }));
  }
  await it.ledger.flush();
  const db = new DatabaseSync(file);
  const texts = new Map(
    db
      .prepare("SELECT id, kind, value FROM text")
      .all()
      .map((row) => [`${row["kind"]} ${row["value"]}`, Number(row["id"])]),
  );
  const id = (kind: number, value: string): number => texts.get(`${kind} ${value}`)!;
  const range = { from: hour, to: hour + HOUR_MS };
  for (const [only, ids] of [
    [{}, {}],
    [{ project: "a" }, { project: id(0, "a") }],
    [{ provider: "two" }, { provider: id(7, "two") }],
    [{ model: "sent" }, { model: id(6, "sent") }],
    [
      { project: "b", model: "claude-sonnet-4-5" },
      { project: id(0, "b"), model: id(6, "claude-sonnet-4-5") },
    ],
  ] as const) {
    const sums = await it.ledger.totals(range, only);
    assert.ok(sums.attempts > 0, JSON.stringify(only));
    const counted = recount(db, hour, hour + HOUR_MS, ids);
    assert.deepEqual(
      Object.fromEntries(FIGURES.map(([, name], index) => [name, counted[index]])),
      Object.fromEntries(FIGURES.map(([, name]) => [name, sums[name]])),
      JSON.stringify(only),
    );
  }
  db.close();
});

function boundsOf(zone: string, [since, until]: readonly [string, string]): number[] {
  const calendar = new Calendar(zone);
  const bounds = [calendar.span("daily", Date.parse(since)).from];
  while (bounds.at(-1)! < Date.parse(until)) bounds.push(calendar.span("daily", bounds.at(-1)!).to);
  return bounds;
}

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Calendar, isTimeZone } from "@tokenman/plugin-sdk";

describe("windows of time zones", () => {
  const at = (text: string) => Date.parse(text);
  const span = (zone: string, period: "hourly" | "daily" | "monthly", time: string) => {
    const { from, to } = new Calendar(zone).span(period, at(time));
    return [new Date(from).toISOString(), new Date(to).toISOString()];
  };
  const cases: readonly [string, "hourly" | "daily" | "monthly", string, string, string][] = [
    ["UTC", "daily", "2026-02-28T23:59:59.999Z", "2026-02-28T00:00:00.000Z", "2026-03-01T00:00:00.000Z"],
    ["UTC", "monthly", "2028-02-29T12:00:00Z", "2028-02-01T00:00:00.000Z", "2028-03-01T00:00:00.000Z"],
    // 23 hours, and 25.
    [
      "Europe/Berlin",
      "daily",
      "2026-03-29T10:00:00Z",
      "2026-03-28T23:00:00.000Z",
      "2026-03-29T22:00:00.000Z",
    ],
    [
      "Europe/Berlin",
      "daily",
      "2026-10-25T10:00:00Z",
      "2026-10-24T22:00:00.000Z",
      "2026-10-25T23:00:00.000Z",
    ],
    [
      "Europe/Berlin",
      "monthly",
      "2026-10-31T23:30:00Z",
      "2026-10-31T23:00:00.000Z",
      "2026-11-30T23:00:00.000Z",
    ],
    // The hour that comes twice is two.
    [
      "Europe/Berlin",
      "hourly",
      "2026-10-25T00:30:00Z",
      "2026-10-25T00:00:00.000Z",
      "2026-10-25T01:00:00.000Z",
    ],
    [
      "Europe/Berlin",
      "hourly",
      "2026-10-25T01:30:00Z",
      "2026-10-25T01:00:00.000Z",
      "2026-10-25T02:00:00.000Z",
    ],
    [
      "Asia/Kolkata",
      "hourly",
      "2026-05-01T10:15:00Z",
      "2026-05-01T09:30:00.000Z",
      "2026-05-01T10:30:00.000Z",
    ],
    [
      "Asia/Kathmandu",
      "daily",
      "2026-05-01T18:15:00Z",
      "2026-05-01T18:15:00.000Z",
      "2026-05-02T18:15:00.000Z",
    ],
    // Clocks go back by half an hour at 15:00 UTC: what follows is a window of its own.
    [
      "Australia/Lord_Howe",
      "hourly",
      "2026-04-04T14:45:00Z",
      "2026-04-04T14:00:00.000Z",
      "2026-04-04T15:00:00.000Z",
    ],
    [
      "Australia/Lord_Howe",
      "hourly",
      "2026-04-04T15:10:00Z",
      "2026-04-04T15:00:00.000Z",
      "2026-04-04T15:30:00.000Z",
    ],
    // The day began at one o'clock.
    [
      "America/Sao_Paulo",
      "daily",
      "2018-11-04T12:00:00Z",
      "2018-11-04T03:00:00.000Z",
      "2018-11-05T02:00:00.000Z",
    ],
    // The last hour of the day came twice.
    [
      "America/Sao_Paulo",
      "daily",
      "2018-02-18T02:30:00Z",
      "2018-02-17T02:00:00.000Z",
      "2018-02-18T03:00:00.000Z",
    ],
    // There was no 30th of December.
    ["Pacific/Apia", "daily", "2011-12-30T09:00:00Z", "2011-12-29T10:00:00.000Z", "2011-12-30T10:00:00.000Z"],
    ["Pacific/Apia", "daily", "2011-12-30T11:00:00Z", "2011-12-30T10:00:00.000Z", "2011-12-31T10:00:00.000Z"],
  ];
  for (const [zone, period, time, from, to] of cases)
    test(`${period} in ${zone} at ${time}`, () => assert.deepEqual(span(zone, period, time), [from, to]));

  test("every instant is in exactly one window, which follows the one before", () => {
    for (const zone of [
      "Europe/Berlin",
      "America/St_Johns",
      "Australia/Lord_Howe",
      "Africa/Cairo",
      "Asia/Gaza",
    ])
      for (const period of ["hourly", "daily", "monthly"] as const) {
        const calendar = new Calendar(zone);
        let next = calendar.span(period, at("2026-03-20T00:00:00Z"));
        const until = at(period === "hourly" ? "2026-04-10T00:00:00Z" : "2027-12-01T00:00:00Z");
        while (next.from < until) {
          for (const inside of [next.from, Math.floor((next.from + next.to) / 2), next.to - 1])
            assert.deepEqual(new Calendar(zone).span(period, inside), next, `${zone} ${period}`);
          const { to } = next;
          next = calendar.span(period, to);
          assert.equal(next.from, to);
          if (
            period === "hourly" &&
            next.from > at("2026-03-22T00:00:00Z") &&
            next.from < at("2026-03-28T00:00:00Z")
          )
            next = calendar.span(period, at("2026-03-28T12:00:00Z"));
        }
      }
  });

  test("an absurd clock is clamped, and nonsense is no zone", () => {
    for (const time of [8.64e15, -8.64e15, Number.MAX_VALUE]) {
      const { from, to } = new Calendar("Europe/Berlin").span("monthly", time);
      assert.ok(Number.isFinite(from) && to > from);
    }
    assert.deepEqual(["Europe/Berlin", "UTC", "", "Mars/Olympus", "x".repeat(5_000)].map(isTimeZone), [
      true,
      true,
      false,
      false,
      false,
    ]);
  });
});

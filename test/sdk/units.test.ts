import assert from "node:assert/strict";
import { test } from "node:test";
import {
  formatDuration,
  formatSize,
  formatUsd,
  parseDuration,
  parseSize,
} from "../../plugin-sdk/src/units.ts";
import { Random } from "./random.ts";

test("durations are read in every unit, alone and added", () => {
  const cases: [string | number, number][] = [
    ["1500ms", 1500],
    ["10s", 10_000],
    ["5m", 300_000],
    ["2h", 7_200_000],
    ["7d", 604_800_000],
    ["1.5s", 1500],
    ["1h30m", 5_400_000],
    [" 1h 30m ", 5_400_000],
    ["10S", 10_000],
    ["0s", 0],
    ["250", 250],
    [250, 250],
  ];
  for (const [text, ms] of cases) assert.equal(parseDuration(text), ms, String(text));
  assert.equal(parseDuration(10, "s"), 10_000);
  assert.equal(parseDuration("10", "m"), 600_000);
  assert.equal(parseDuration("10ms", "s"), 10);
});

test("what is no duration is refused, and the message says what was found", () => {
  const bad = ["", "s", "10 parsecs", "-5s", "1e3", "10s!", ".5s", "١s", "1s".repeat(40)];
  for (const text of bad) {
    assert.throws(() => parseDuration(text), RangeError, text);
  }
  for (const number of [-1, Number.NaN, Number.POSITIVE_INFINITY]) {
    assert.throws(() => parseDuration(number), RangeError);
  }
  assert.throws(() => parseDuration("10 parsecs"), /expected a duration .* found "10 parsecs"/);
});

test("durations are written in the form in which they are read", () => {
  const cases: [number, string][] = [
    [0, "0ms"],
    [0.25, "0.25ms"],
    [999, "999ms"],
    [1000, "1s"],
    [1500, "1.5s"],
    [60_000, "1m"],
    [5_400_000, "1h30m"],
    [90_061_001, "1d1h1m1.001s"],
  ];
  for (const [ms, text] of cases) assert.equal(formatDuration(ms), text);
  assert.throws(() => formatDuration(-1), RangeError);
  const random = new Random(1);
  for (let i = 0; i < 2000; i++) {
    const ms = random.below(10 ** (1 + random.below(11)));
    assert.ok(Math.abs(parseDuration(formatDuration(ms)) - ms) < 1e-6, `${ms}`);
  }
});

test("sizes are read in decimal and binary units", () => {
  const cases: [string | number, number][] = [
    ["32MiB", 33_554_432],
    ["100MB", 100_000_000],
    ["1kb", 1000],
    ["1 KiB", 1024],
    ["512b", 512],
    ["1.5gib", 1_610_612_736],
    ["33554432", 33_554_432],
    [33_554_432, 33_554_432],
    [0, 0],
  ];
  for (const [text, bytes] of cases) assert.equal(parseSize(text), bytes, String(text));
});

test("what is no size is refused", () => {
  for (const text of [
    "",
    "MB",
    "10 apples",
    "-1kb",
    "1k",
    "1e9",
    "constructor",
    "1constructor",
    "9999999999tib",
  ]) {
    assert.throws(() => parseSize(text), RangeError, text);
  }
  assert.throws(() => parseSize(-1), RangeError);
  assert.throws(() => parseSize("10 apples"), /expected a size .* found "10 apples"/);
});

test("sizes are written in the unit that they fill", () => {
  const cases: [number, string][] = [
    [0, "0B"],
    [1023, "1023B"],
    [1024, "1KiB"],
    [520_000, "507.8KiB"],
    [1_048_575, "1MiB"],
    [33_554_432, "32MiB"],
    [1024 ** 5, "1024TiB"],
  ];
  for (const [bytes, text] of cases) assert.equal(formatSize(bytes), text);
  assert.equal(parseSize(formatSize(33_554_432)), 33_554_432);
  assert.throws(() => formatSize(Number.NaN), RangeError);
});

test("dollars are exact from cents up and keep three digits below one dollar", () => {
  const cases: [bigint | number, string][] = [
    [0n, "$0.00"],
    [1n, "$0.000000001"],
    [12_345_678n, "$0.0123"],
    [500_000_000, "$0.50"],
    [999_999_999n, "$1.00"],
    [12_345_000_000n, "$12.35"],
    [1_000_000_000_000_000_000_000n, "$1000000000000.00"],
    [-420_000_000n, "-$0.42"],
    [-1.5, "-$0.000000002"],
    [0.2, "$0.00"],
  ];
  for (const [nanos, text] of cases) assert.equal(formatUsd(nanos), text);
  assert.throws(() => formatUsd(Number.NaN), RangeError);
});

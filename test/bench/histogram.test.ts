import assert from "node:assert/strict";
import { test } from "node:test";
import { Histogram } from "../../scripts/bench/histogram.ts";

test("an empty histogram answers 0 everywhere", () => {
  const histogram = new Histogram();
  assert.deepEqual(
    [histogram.count, histogram.mean, histogram.max, histogram.percentile(50), histogram.percentile(100)],
    [0, 0, 0, 0, 0],
  );
});

test("values below 512 microseconds are exact, by the nearest-rank rule", () => {
  const histogram = new Histogram();
  for (let value = 1; value <= 100; value++) histogram.record(value);
  assert.equal(histogram.count, 100);
  assert.equal(histogram.mean, 50.5);
  assert.equal(histogram.percentile(1), 1);
  assert.equal(histogram.percentile(50), 50);
  assert.equal(histogram.percentile(99), 99);
  assert.equal(histogram.percentile(100), 100);
  assert.equal(histogram.percentile(0), 1);
});

test("percentiles of a wide spread are within 0.4 % above the sorted array's", () => {
  const histogram = new Histogram();
  const values: number[] = [];
  let state = 12_345;
  for (let index = 0; index < 20_000; index++) {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    // From 1 microsecond to about 100 seconds, evenly over the powers of ten.
    const value = Math.round(10 ** ((state / 2_147_483_648) * 8));
    values.push(value);
    histogram.record(value);
  }
  values.sort((a, b) => a - b);
  for (const percent of [1, 10, 50, 90, 99, 99.9, 100]) {
    const exact = values[Math.max(1, Math.ceil((percent / 100) * values.length)) - 1]!;
    const found = histogram.percentile(percent);
    assert.ok(found >= exact && found <= exact * 1.004, `p${percent}: ${found} for ${exact}`);
  }
  assert.equal(histogram.max, values.at(-1));
});

test("bucket borders are counted on their own side", () => {
  for (const border of [511, 512, 513, 1_023, 1_024, 1_027, 1_028, 65_535, 65_536, 2 ** 31, 2 ** 33]) {
    const histogram = new Histogram();
    histogram.record(border);
    histogram.record(border * 4);
    const found = histogram.percentile(50);
    assert.ok(found >= border && found <= border * 1.004, `${found} for ${border}`);
  }
});

test("fractions are rounded, negatives count as 0, and the unmeasurably large keep their maximum", () => {
  const histogram = new Histogram();
  histogram.record(1.6);
  histogram.record(-5);
  histogram.record(2 ** 50);
  assert.equal(histogram.percentile(30), 0);
  assert.equal(histogram.percentile(60), 2);
  assert.equal(histogram.count, 3);
  assert.equal(histogram.max, 2 ** 50);
});

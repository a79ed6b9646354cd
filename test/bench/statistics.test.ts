import assert from "node:assert/strict";
import { test } from "node:test";
import { median, medianDifference, medianRatio } from "../../scripts/bench/statistics.ts";

test("the median is the middle, or the mean of the two middles, and leaves out what was not measured", () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 3, 2]), 2.5);
  assert.equal(median([Number.NaN, 5, Number.NaN]), 5);
  assert.ok(Number.isNaN(median([])));
});

test("a slow round that hits both sides does not change the ratio", () => {
  assert.equal(medianRatio([12, 120, 12], [10, 100, 10]), 1.2);
  assert.equal(medianDifference([12, 120, 12], [10, 100, 10]), 2);
});

test("a round without its base is left out", () => {
  assert.equal(medianRatio([12, 999], [10]), 1.2);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { HeaderShapes } from "../../plugin-sdk/src/header-shapes.ts";

test("what counts is collected as it came, in any case, with duplicates, in the place of what was there", () => {
  const shapes = new HeaderShapes((name) => name.startsWith("x-"));
  const into = ["a", "left", "over", "from", "before", "it"];
  const headers = ["Host", "x-none", "X-One", "1", "x-one", "2", "Accept", "*/*"];
  for (let time = 0; time < 2; time++) {
    shapes.collect(headers, into);
    assert.deepEqual(into, ["X-One", "1", "x-one", "2"]);
  }
  shapes.collect(["Host", "a", "X-One", "other"], into);
  assert.deepEqual(into, ["X-One", "other"]);
  shapes.collect(["Host", "a"], into);
  assert.deepEqual(into, []);
  shapes.collect([], into);
  assert.deepEqual(into, []);
});

test("lists that come in turn are learned once each, however many others came before them", () => {
  let asked = 0;
  const shapes = new HeaderShapes(() => {
    asked++;
    return true;
  });
  const into: string[] = [];
  for (let other = 0; other < 100; other++) shapes.collect([`x-${other}`, ""], into);
  asked = 0;
  for (let round = 0; round < 10; round++)
    for (const name of ["accept", "range", "origin"]) {
      shapes.collect([name, "1"], into);
      assert.deepEqual(into, [name, "1"]);
    }
  assert.equal(asked, 3);
});

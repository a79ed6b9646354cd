import assert, { AssertionError } from "node:assert/strict";
import test from "node:test";
import { assertBytesEqual, assertBytesStart, pointerAt, showDifference } from "@tokenman/plugin-sdk/testkit";

function messageOf(run: () => void): string {
  try {
    run();
  } catch (error) {
    assert.ok(error instanceof AssertionError);
    return error.message;
  }
  return assert.fail("it did not throw");
}

test("equal bytes pass, whatever they were given as", () => {
  assertBytesEqual("ä", Buffer.from([0xc3, 0xa4]));
  assertBytesStart("abc", "ab");
});

test("a difference is shown with its offset, its JSON pointer and a caret below it", () => {
  const message = messageOf(() =>
    assertBytesEqual('{"a":[1,{"b/c": "x",\n"d":2}]}', '{"a":[1,{"b/c": "y",\n"d":2}]}', "the bodies differ"),
  );
  assert.equal(
    message,
    [
      "the bodies differ at byte 17, /a/1/b~1c (29 bytes, expected 29):",
      '  actual    {"a":[1,{"b/c": "x",\\n"d":2}]}',
      '  expected  {"a":[1,{"b/c": "y",\\n"d":2}]}',
      "                             ^",
    ].join("\n"),
  );
  assert.equal(pointerAt(Buffer.from("[1]"), 0), "");
  assert.equal(pointerAt(Buffer.from("[1"), 0), undefined);
});

test("a missing end is shown as one, and a long text is cut around the difference", () => {
  const long = "x".repeat(500);
  assert.match(
    messageOf(() => assertBytesEqual(long, `${long}y`)),
    /at byte 500 .*\n {2}actual {4}…x{48}\(end\)\n/,
  );
  assert.match(
    messageOf(() => assertBytesStart("ab", "ac")),
    /at byte 1/,
  );
  assert.match(showDifference(Buffer.from([0, 1]), Buffer.from([0, 2]), 1), /\\x00\\x01/);
});

import assert from "node:assert/strict";
import { test } from "node:test";
import { benchBody, NONCE_DIGITS, writeNonce } from "../../scripts/bench/bodies.ts";
import { BUFFERED, modelFor, specIn } from "../../scripts/bench/replies.ts";

for (const dialect of ["openai", "anthropic"] as const) {
  for (const size of [2_048, 61_440, 532_480]) {
    test(`an ${dialect} body of ${size} bytes is that long, is JSON, and is new only in its last message`, () => {
      const { bytes, nonceAt } = benchBody(dialect, size, BUFFERED);
      assert.equal(bytes.length, size);
      const before = JSON.parse(bytes.toString("utf8")) as { messages: unknown[] };
      const copy = Buffer.from(bytes);
      writeNonce(copy, nonceAt, 1_234_567_890_123);
      assert.equal(copy.length, size);
      const after = JSON.parse(copy.toString("utf8")) as { messages: unknown[] };
      assert.deepEqual(after.messages.slice(0, -1), before.messages.slice(0, -1));
      assert.notDeepEqual(after.messages.at(-1), before.messages.at(-1));
      assert.equal(copy.toString("latin1", nonceAt, nonceAt + NONCE_DIGITS), "0001234567890123");
    });
  }
}

test("the wanted reply is found again in the first bytes of a body", () => {
  const spec = { events: 40, delayMs: 5 };
  for (const dialect of ["openai", "anthropic"] as const)
    assert.deepEqual(specIn(benchBody(dialect, 2_048, spec).bytes.subarray(0, 200)), spec);
  assert.equal(modelFor(spec), "bench-e40-d5");
  assert.equal(specIn(Buffer.from('{"model":"other"}')), undefined);
});

test("a size that no conversation fits in is refused with the least size", () => {
  assert.throws(() => benchBody("openai", 300, BUFFERED), /needs at least \d+ bytes, not 300/);
});

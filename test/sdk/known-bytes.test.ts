import assert from "node:assert/strict";
import { test } from "node:test";
import { KnownBytes } from "@tokenman/plugin-sdk";
import { Random } from "./random.ts";

test("what was worked out of a run of bytes comes again for the same bytes, wherever they stand, and for no others", () => {
  const random = new Random(3);
  const known = new KnownBytes<string>({ entries: 8, bytes: 20_000 });
  let made = 0;
  const runs = Array.from({ length: 12 }, () => {
    const bytes = Buffer.alloc(300 + 100 * random.below(4), "x");
    for (let at = 0; at < 5; at++) bytes[random.below(bytes.length)] = 97 + random.below(3);
    return bytes;
  });
  for (let round = 0; round < 2_000; round++) {
    const run = random.pick(runs);
    const before = Buffer.alloc(random.below(50), "y");
    const body = Buffer.concat([before, run, Buffer.from("behind")]);
    const make = () => {
      made++;
      return body.toString("latin1", before.length, before.length + run.length);
    };
    assert.equal(known.of(body, before.length, before.length + run.length, make), run.toString("latin1"));
  }
  assert.ok(made < 1_500, `${made} of 2,000 were worked out`);
});

test("a beginning is found by what is kept of it, and not where there are fewer bytes", () => {
  const known = new KnownBytes<number>();
  const body = Buffer.from(`${"a".repeat(500)}b${"c".repeat(300)}`);
  known.keep(body, 0, 501, 7);
  assert.equal(known.beginning(body, 0, body.length), 7);
  assert.equal(known.beginning(Buffer.from(`_${body}`), 1, body.length + 1), 7);
  assert.equal(known.beginning(body, 0, 500), undefined);
  assert.equal(known.beginning(body, 1, body.length), undefined);
});

test("short runs are always worked out, long ones not kept, and the oldest go", () => {
  const known = new KnownBytes<number>({ entries: 2, bytes: 1_000 });
  let made = 0;
  const ask = (bytes: Buffer) => known.of(bytes, 0, bytes.length, () => ++made);
  const short = Buffer.alloc(100);
  assert.deepEqual([ask(short), ask(short)], [1, 2]);
  const long = Buffer.alloc(300_000);
  assert.deepEqual([ask(long), ask(long)], [3, 4]);
  const [a, b, c] = [Buffer.alloc(400, "a"), Buffer.alloc(400, "b"), Buffer.alloc(400, "c")];
  assert.deepEqual([ask(a), ask(b), ask(a), ask(c), ask(a), ask(b)], [5, 6, 5, 7, 5, 8]);
});

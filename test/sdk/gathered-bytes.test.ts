import assert from "node:assert/strict";
import { test } from "node:test";
import { GatheredBytes } from "@tokenman/plugin-sdk";
import { Random } from "@tokenman/plugin-sdk/testkit";

test("what was pushed is there in order, whatever the chunks' lengths, whenever it is asked for", () => {
  const random = new Random(7);
  for (let round = 0; round < 200; round++) {
    const kept = new GatheredBytes();
    const pushed: Buffer[] = [];
    let gone = 0;
    for (let count = random.below(300); count > 0; count--) {
      const length = random.pick([0, 1, 7, 150, 2_048, 2_049, 5_000]);
      const chunk = Buffer.alloc(length, random.below(256));
      pushed.push(Buffer.from(chunk));
      if (random.chance(0.1)) kept.add(chunk);
      else kept.push(chunk);
      if (random.chance(0.02)) gone += kept.shift()?.length ?? 0;
      if (random.chance(0.1)) {
        const seen = kept.pieces.length;
        kept.push(Buffer.from("x"));
        pushed.push(Buffer.from("x"));
        assert.ok(kept.pieces.length > seen, "what came later is in later pieces");
      }
    }
    assert.deepEqual(Buffer.concat(kept.pieces), Buffer.concat(pushed).subarray(gone));
  }
});

test("a chunk that is the only one is kept as it is, and small ones in few pieces", () => {
  const kept = new GatheredBytes();
  const only = Buffer.from("only");
  kept.push(only);
  assert.equal(kept.pieces[0], only);
  for (let count = 0; count < 1_000; count++) kept.push(Buffer.from("data: {}\n\n"));
  assert.ok(kept.pieces.length <= 4);
  assert.equal(new GatheredBytes().shift(), undefined);
});

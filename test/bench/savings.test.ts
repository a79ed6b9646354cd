import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { measure, type Row, type RowResult, rowsOf } from "../../scripts/bench/savings-rows.ts";
import { syntheticSession } from "../support/synthetic-session.ts";

const turns = syntheticSession();
const rows = rowsOf("anthropic-messages");
const OPTIONS = { bytesPerToken: 4, checks: true };

function rowNamed(name: string, hints: boolean, from: readonly Row[] = rows): Row {
  const row = from.find((each) => each.name === name && each.hints === hints);
  assert.ok(row !== undefined, name);
  return row;
}
const measured = (name: string, hints: boolean, from?: readonly Row[]): Promise<RowResult> =>
  measure(turns, rowNamed(name, hints, from), OPTIONS);

describe("make bench-savings", { timeout: 100_000 }, () => {
  it("bills a session as it was recorded, where the client hints and nothing is between", async () => {
    const direct = await measured("direct", true);
    // Calls that were broken off before their usage came are billed here, and are not in the recording.
    const recorded = turns.filter(({ usage }) => usage.cacheRead + usage.cacheWrite > 0);
    const read = recorded.reduce((sum, { usage }) => sum + usage.cacheRead, 0);
    const [unsaid] = turns.filter(({ usage }) => usage.cacheRead + usage.cacheWrite === 0);
    assert.equal(recorded.length, turns.length - 1);
    assert.ok(direct.read > read && unsaid !== undefined);
    assert.equal(direct.input, 0);
    assert.equal(direct.invalid, 0);
  });

  it("costs the same through TokenMan as without it, where the client's own hints do the work", async () => {
    const [direct, defaults] = [await measured("direct", true), await measured("defaults", true)];
    assert.ok(defaults.nanoUsd <= direct.nanoUsd, `${defaults.nanoUsd} ${direct.nanoUsd}`);
    assert.equal(defaults.output, direct.output);
    assert.equal(defaults.invalid, 0);
  });

  it("reads nothing without hints, and never more than there is with naive compression", async () => {
    const direct = await measured("direct", false);
    assert.equal(direct.read + direct.written, 0);
    const naive = await measured("naive, 20 messages", true);
    assert.ok(naive.input + naive.read + naive.written < direct.input);
    assert.equal(naive.invalid, 0);
  });

  it("gives the same figures each time", async () => {
    assert.deepEqual(await measured("everything", false), await measured("everything", false));
  });

  for (const dialect of ["openai-chat", "openai-responses"] as const) {
    it(`caches ${dialect} without hints, and naive compression stays valid`, async () => {
      const own = rowsOf(dialect);
      const direct = await measured("direct", false, own);
      assert.ok(direct.read > direct.written);
      assert.equal(direct.invalid, 0);
      assert.equal((await measured("naive, 20 messages", false, own)).invalid, 0);
      const defaults = await measured("defaults", false, own);
      assert.ok(defaults.nanoUsd <= direct.nanoUsd, `${defaults.nanoUsd} ${direct.nanoUsd}`);
      assert.equal(defaults.invalid, 0);
    });
  }
});

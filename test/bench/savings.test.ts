import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { promisify } from "node:util";
import type { Row, RowResult } from "../../scripts/bench/savings-rows.ts";
import { syntheticRecording } from "../support/synthetic-session.ts";

const SCRIPT = join(import.meta.dirname, "../../scripts/bench/savings.ts");
const folder = mkdtempSync(join(tmpdir(), "bench-savings-"));
after(() => rmSync(folder, { recursive: true }));
const recording = join(folder, "session.jsonl");
writeFileSync(recording, syntheticRecording());

/** Measures rows of one dialect, each in a process of its own as the script does, with every request checked. */
async function measured(
  dialect: string,
  rows: string,
): Promise<(name: string, hints?: boolean) => RowResult> {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [SCRIPT, "--json", "--check", "--dialect", dialect, "--rows", rows, recording],
    // A test that is given up leaves its processes behind: the file would wait for them.
    { maxBuffer: 1e7, timeout: 50_000, killSignal: "SIGKILL" },
  );
  const found = JSON.parse(stdout) as { rows: { row: Row; result: RowResult }[] };
  for (const { row, result } of found.rows) assert.equal(result.invalid, 0, row.name);
  return (name, hints = false) => {
    const one = found.rows.find(({ row }) => row.name === name && row.hints === hints);
    assert.ok(one !== undefined, name);
    return one.result;
  };
}

function hitRate({ input, read, written }: RowResult): number {
  return read / (input + read + written);
}

describe("make bench-savings", { timeout: 110_000 }, () => {
  it("costs no more through TokenMan than without it, where the client's own hints do the work", async () => {
    const rows = await measured("anthropic-messages", "direct,defaults");
    const direct = rows("direct", true);
    const defaults = rows("defaults", true);
    assert.ok(defaults.nanoUsd <= direct.nanoUsd, `${defaults.nanoUsd} ${direct.nanoUsd}`);
    assert.equal(defaults.output, direct.output);
    // Without hints nothing is cached, but what TokenMan's hints do.
    assert.equal(rows("direct").read + rows("direct").written, 0);
    const hinted = rows("defaults");
    assert.ok(hinted.read > 0 && hinted.nanoUsd < rows("direct").nanoUsd);
    const saved = rows("direct").nanoUsd - hinted.nanoUsd;
    assert.ok(Math.abs((hinted.savings["dedup"]?.nanoUsd ?? 0) - saved) < saved / 20);
  });

  it("shows what naive compression does to the cache, with valid requests", async () => {
    for (const dialect of ["openai-chat", "openai-responses"]) {
      const rows = await measured(dialect, "direct,naive,defaults");
      const [direct, naive] = [rows("direct"), rows("naive")];
      assert.ok(rows("defaults").nanoUsd <= direct.nanoUsd, "no more than without TokenMan");
      // OpenAI caches without hints; a window that slides is new at its beginning each time.
      assert.ok(direct.read > direct.written);
      assert.ok(hitRate(naive) < hitRate(direct) - 0.1, `${hitRate(naive)} ${hitRate(direct)}`);
    }
  });
});

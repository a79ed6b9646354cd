import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";

const LOG = join(import.meta.dirname, "..", "..", "cli", "log.ts");

/** The lines that a process writes whose `log` is told by `code`. */
function lines(code: string): Record<string, unknown>[] {
  const program = `import { createLog } from ${JSON.stringify(LOG)}; const log = createLog("info"); ${code}; log.flush();`;
  const { stderr } = spawnSync(process.execPath, ["--input-type=module", "--eval", program], {
    encoding: "utf8",
    timeout: 30_000,
  });
  return stderr
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
}

test("an error is logged with its class, code and causes, and without keys", () => {
  const [plain, own, system] = lines(`
    log.error({ err: new TypeError("sk-ant-api03-AbCdEfGhIjKlMnOp", { cause: new RangeError("too far") }) }, "one");
    class OwnError extends Error {}
    log.error({ err: new OwnError("x") }, "two");
    log.error({ err: Object.assign(new Error("refused"), { code: "ECONNREFUSED" }) }, "three")`);
  const { stack, cause, ...rest } = plain!["err"] as Record<string, unknown>;
  assert.deepEqual(rest, { type: "TypeError", message: "[redacted]" });
  assert.match(String(stack), /^TypeError: \[redacted\]\n {4}at /);
  assert.equal((cause as { type: string }).type, "RangeError");
  assert.equal((own!["err"] as { type: string }).type, "OwnError");
  const { type, code } = system!["err"] as { type: string; code: string };
  assert.deepEqual([type, code], ["Error", "ECONNREFUSED"]);
});

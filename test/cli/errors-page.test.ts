import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { ERRORS, type ErrorCode } from "@tokenman/plugin-sdk";

const page = readFileSync(join(import.meta.dirname, "..", "..", "docs", "errors.md"), "utf8");
const rows = [...page.matchAll(/^\| `(TM_[A-Z_]+)` \| (\d+|–) \| (\d+) \| (.+) \|$/gm)];

test("the errors page has every code of the catalogue, once, in the catalogue's order", () => {
  assert.deepEqual(
    rows.map(([, code]) => code),
    Object.keys(ERRORS),
  );
  assert.equal(page.match(/TM_[A-Z_]+/g)?.length, rows.length, "a code stands outside its own row");
});

test("the errors page gives each code the status and exit code of the catalogue", () => {
  for (const [, code = "", status, exit, text] of rows) {
    const { status: wanted, exit: wantedExit } = ERRORS[code as ErrorCode];
    assert.equal(Number(exit), wantedExit, code);
    // What ends a command or a start has no client: the catalogue's 500 stands for that.
    if (status === "–") assert.equal(wanted, 500, code);
    else assert.equal(Number(status), wanted, code);
    assert.ok((text ?? "").length > 20, `${code} is not explained`);
  }
});

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { SEEDED_BUGS, type SeededBug } from "./seeded-bugs.ts";

/** How many seeds a bug may take to be noticed. */
const SEEDS = 6;
const REPOSITORY = join(import.meta.dirname, "../..");
/** What the property test runs on. */
const NEEDED = [
  "package.json",
  "kernel",
  "test/support",
  "test/sdk",
  "test/kernel/support",
  "test/kernel/property",
];

/**
 * Runs a seed's plans against a copy of the kernel. Resolves to what it printed when it failed, and to undefined where
 * it passed.
 */
async function run(
  copy: string,
  { seed }: Pick<SeededBug, "seed">,
  ...options: readonly string[]
): Promise<string | undefined> {
  const main = join(copy, "test/kernel/property/main.ts");
  const child = spawn(process.execPath, [main, ...options, String(seed)], {
    stdio: ["ignore", "ignore", "pipe"],
    timeout: 30_000,
    killSignal: "SIGKILL",
  });
  let said = "";
  child.stderr.on("data", (chunk) => {
    said += chunk;
  });
  const [code] = (await once(child, "close")) as [number | null];
  return code === 0 ? undefined : said;
}

describe("the property test of the hooks", { concurrency: 2 }, () => {
  let root: string;
  before(async () => {
    root = await mkdtemp(join(tmpdir(), "tokenman-mutants-"));
  });
  after(() => rm(root, { recursive: true, force: true }));

  async function copyOf(name: string): Promise<string> {
    const copy = join(root, name);
    for (const path of NEEDED) await cp(join(REPOSITORY, path), join(copy, path), { recursive: true });
    await symlink(join(REPOSITORY, "node_modules"), join(copy, "node_modules"));
    return copy;
  }

  it("passes on a copy of the kernel as it is", async () => {
    assert.equal(await run(await copyOf("sound"), { seed: 1 }), undefined);
  });

  for (const [index, bug] of SEEDED_BUGS.entries()) {
    it(`notices that ${bug.why}`, async () => {
      const copy = await copyOf(`bug-${index}`);
      const file = join(copy, bug.file);
      const source = await readFile(file, "utf8");
      const parts = source.split(bug.find);
      assert.equal(
        parts.length,
        2,
        `${bug.file} has this once, or seeded-bugs.ts must follow it:\n${bug.find}`,
      );
      await writeFile(file, parts.join(bug.replace));
      // Some bugs show by a race between two timers: a machine that is busy may let one seed's plans miss it.
      let said: string | undefined;
      for (let seed = bug.seed; seed < bug.seed + SEEDS && said === undefined; seed++)
        said = await run(copy, { seed }, "--patience", "2000");
      assert.ok(said !== undefined, "the bug was not noticed");
      // Not because the copy does not even start.
      assert.match(said, /seed \d+|is never settled|unhandled rejection|uncaught exception/);
      assert.doesNotMatch(said, /SyntaxError|ERR_MODULE_NOT_FOUND/);
    });
  }
});

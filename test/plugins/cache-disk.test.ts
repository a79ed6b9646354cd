import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";

/** Stores answers until the disk takes no more, purges one project of two, and begins anew. */
const SCRIPT = `
import { Cache } from ${JSON.stringify(new URL("../../plugins/cache/cache.ts", import.meta.url).href)};
const file = process.argv[2];
const log = { debug() {}, info() {}, warn() {}, error() {}, trace() {} };
const open = () => {
  const cache = new Cache(file, log);
  cache.configure({ memoryBytes: 1e9, diskBytes: 1e9, ttlMs: 1e9 });
  return cache;
};
const stored = (text) => ({
  head: "", body: Buffer.from(text.padEnd(20_000, text)), chunked: false, provider: "p",
  at: performance.timeOrigin + performance.now(), tokens: 1, nanoUsd: 1,
});
const until = async (test) => { while (!test()) await new Promise((resolve) => setTimeout(resolve, 20)); };
let cache = open();
const put = (from, to) => {
  for (let n = from; n < to; n++) cache.put("key" + n, n % 2 ? "web" : "shop", stored("answer" + n));
};
put(0, 8);
await until(() => cache.stats().disk.written === 8);
put(8, 40);
await until(() => cache.stats().disk.failing !== null);
const failing = cache.stats().disk.failing;
const inMemory = (await cache.find("key1"))?.body.length;
const purged = await cache.purge("web");
const kept = (await cache.find("key2"))?.body.length;
await cache.close();
cache = open();
const found = [];
for (let n = 0; n < 40; n++) if (await cache.find("key" + n)) found.push(n);
await cache.close();
console.log(JSON.stringify({ failing,  inMemory, purged, kept, found }));
`;

describe("cache: a disk that fills up in mid-run", () => {
  it("leaves the answers in memory, and a purge leaves nothing in the file", {
    timeout: 60_000,
  }, async () => {
    const folder = mkdtempSync(join(tmpdir(), "cache-full-"));
    try {
      const file = join(folder, "cache.db");
      // A file of the process may have so many blocks of 512 bytes.
      const script = join(folder, "fill.ts");
      writeFileSync(script, SCRIPT);
      const limited = ["-c", 'ulimit -f 400; exec "$0" "$@"', process.execPath, script, file];
      const child = spawn("sh", limited, { stdio: ["ignore", "pipe", "inherit"] });
      let out = "";
      child.stdout.on("data", (chunk: Buffer) => {
        out += String(chunk);
      });
      await new Promise((resolve) => child.on("close", resolve));
      const { failing, inMemory, purged, kept, found } = JSON.parse(out) as {
        failing: string;
        inMemory: number;
        purged: number;
        kept: number;
        found: readonly number[];
      };
      assert.match(failing, /full|I\/O/i);
      assert.equal(inMemory, 20_000);
      assert.equal(purged, 20);
      assert.equal(kept, 20_000);
      assert.deepEqual(
        found.filter((n) => n % 2 === 1),
        [],
        "none of the purged project's",
      );
      for (const suffix of ["", "-wal"]) {
        const bytes = read(file + suffix);
        assert.equal(bytes.includes("answer1answer1"), false, `cache.db${suffix}`);
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

function read(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch {
    return Buffer.alloc(0);
  }
}

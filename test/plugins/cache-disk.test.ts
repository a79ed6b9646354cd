import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { EventEmitter, once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, it } from "node:test";
import { AnswerKey, type Logger, type StoredReply } from "@tokenman/plugin-sdk";
import { Cache } from "../../plugins/cache/cache.ts";
import { Disk } from "../../plugins/cache/disk.ts";

/** Whoever waits for the log hears of each line. */
const told = new EventEmitter();
const say = (): void => void told.emit("line");
const log: Logger = { trace: say, debug: say, info: say, warn: say, error: say } as unknown as Logger;
const KEY = new AnswerKey(new Int32Array(8), true, Buffer.from("key"), 1);
const OTHER_KEY = new AnswerKey(new Int32Array(8), true, Buffer.from("other"), 2);
function stored(text: string): StoredReply {
  const at = performance.timeOrigin + performance.now();
  return { headers: [], body: Buffer.from(text), chunked: false, provider: "p", at, tokens: 1, nanoUsd: 1 };
}

/** Stores answers until the disk takes no more, purges one project of two, and begins anew. */
const SCRIPT = `
import { Cache } from ${JSON.stringify(new URL("../../plugins/cache/cache.ts", import.meta.url).href)};
import { AnswerKey } from ${JSON.stringify(new URL("../../plugin-sdk/src/answer-key.ts", import.meta.url).href)};
const file = process.argv[2];
const keyOf = (n) => new AnswerKey(new Int32Array(8), true, Buffer.from("key" + n), n);
const log = { debug() {}, info() {}, warn() {}, error() {}, trace() {} };
const open = () => {
  const cache = new Cache(file, log);
  cache.configure({ memoryBytes: 1e9, diskBytes: 1e9, ttlMs: 1e9 });
  return cache;
};
const stored = (text) => ({
  headers: [], body: Buffer.from(text.padEnd(20_000, text)), chunked: false, provider: "p",
  at: performance.timeOrigin + performance.now(), tokens: 1, nanoUsd: 1,
});
const until = async (test) => { while (!test()) await new Promise((resolve) => setTimeout(resolve, 20)); };
let cache = open();
const put = (from, to) => {
  for (let n = from; n < to; n++) cache.put(keyOf(n), n % 2 ? "web" : "shop", stored("answer" + n));
};
put(0, 8);
await until(() => cache.stats().disk.written === 8);
put(8, 40);
await until(() => cache.stats().disk.failing !== null);
const failing = cache.stats().disk.failing;
const inMemory = (await cache.find(keyOf(1)))?.body.length;
// What is on disk is replaced; whatever becomes of that, it must not come back.
cache.put(keyOf(4), "shop", stored("renewed"));
const purged = await cache.purge("web");
const kept = (await cache.find(keyOf(2)))?.body.length;
await cache.close();
cache = open();
const found = [];
for (let n = 0; n < 40; n++) if (await cache.find(keyOf(n))) found.push(n);
const replaced = String((await cache.find(keyOf(4)))?.body.subarray(0, 7));
await cache.close();
console.log(JSON.stringify({ failing, inMemory, purged, kept, found, replaced }));
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
      const { failing, inMemory, purged, kept, found, replaced } = JSON.parse(out) as {
        failing: string;
        inMemory: number;
        purged: number;
        kept: number;
        found: readonly number[];
        replaced: string;
      };
      assert.match(failing, /full|I\/O/i);
      assert.equal(inMemory, 20_000);
      assert.equal(purged, 20);
      assert.equal(kept, 20_000);
      assert.match(replaced, /^(?:renewed|undefined)$/);
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

describe("cache: what is on disk", () => {
  it("stays until it is known how much may be there", async () => {
    const folder = mkdtempSync(join(tmpdir(), "cache-start-"));
    try {
      const file = join(folder, "cache.db");
      const first = new Cache(file, log);
      first.configure({ memoryBytes: 1e6, diskBytes: 1e6, ttlMs: 1e6 });
      first.put(KEY, "default", stored("one"));
      await first.close();
      const source = { unwritten: () => [], notWritten() {} };
      const disk = new Disk(file, log, source);
      await disk.loading;
      assert.deepEqual([disk.count, disk.evicted], [1, 0]);
      disk.resize(1);
      assert.deepEqual([disk.count, disk.evicted], [0, 1]);
      await disk.close();
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});

describe("cache: a file that another process has", () => {
  it("loses its old answers all the same, when it is given back", { timeout: 60_000 }, async () => {
    const folder = mkdtempSync(join(tmpdir(), "cache-busy-"));
    try {
      const file = join(folder, "cache.db");
      const open = (): Cache => {
        const cache = new Cache(file, log);
        cache.configure({ memoryBytes: 1e6, diskBytes: 1e6, ttlMs: 1e9 });
        return cache;
      };
      const first = open();
      first.put(KEY, "web", stored("old"));
      first.put(OTHER_KEY, "web", stored("kept"));
      await first.close();
      const second = open();
      assert.equal(String((await second.find(KEY))?.body), "old");
      const other = new DatabaseSync(file);
      other.exec("BEGIN IMMEDIATE");
      second.put(KEY, "web", stored("new"));
      // Its thread waits for the other process for a second before it says so.
      while (second.stats().disk.failing === null) await once(told, "line");
      other.exec("ROLLBACK");
      other.close();
      await second.close();
      const third = open();
      assert.equal(String((await third.find(KEY))?.body), "new");
      assert.equal(String((await third.find(OTHER_KEY))?.body), "kept");
      await third.close();
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

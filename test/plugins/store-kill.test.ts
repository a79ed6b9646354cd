import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { sendRequest } from "@tokenman/plugin-sdk/testkit";
import { durability } from "../../scripts/bench/durability.ts";
import type { FromChild } from "../../scripts/bench/durability-child.ts";

const CHILD = join(import.meta.dirname, "..", "..", "scripts", "bench", "durability-child.ts");

test("fault 29: a process that is killed loses nothing that is half a second old, and no settlement that was acknowledged", async (t) => {
  const { problems, ...counts } = await durability(6, { graceMs: 500 });
  t.diagnostic(JSON.stringify(counts));
  assert.deepEqual(problems, []);
  assert.ok(counts.delivered > 50 && counts.interrupted > 0 && counts.settled > 50, JSON.stringify(counts));
});

interface Limited extends AsyncDisposable {
  readonly proxy: string;
  readonly dataDir: string;
}

/** TokenMan in a process whose files cannot grow beyond `bytes`: to SQLite that is a disk that fails. */
async function limitedTo(bytes: number, order: readonly string[]): Promise<Limited> {
  const folder = mkdtempSync(join(tmpdir(), "full-"));
  const dataDir = join(folder, "data");
  const configFile = join(folder, "tokenman.toml");
  mkdirSync(dataDir);
  writeFileSync(
    configFile,
    `[server]\nproxy_port = 0\ndashboard_port = 0\nstore_body = true\ndata_dir = ${JSON.stringify(dataDir)}
[plugins]\norder = ${JSON.stringify(order)}\n`,
  );
  // POSIX counts in blocks of 512 bytes.
  const script = `ulimit -f ${Math.floor(bytes / 512)}; exec "$0" "$@"`;
  const child = spawn("/bin/sh", ["-c", script, process.execPath, CHILD, configFile], {
    stdio: ["ignore", "ignore", "ignore", "ipc"],
  });
  const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const proxy = await new Promise<string>((resolve, reject) => {
    child.once("exit", () => reject(new Error("the child ended before it was ready")));
    child.on("message", (message: FromChild) => {
      if (message.kind === "ready") resolve(message.proxy);
      else if (message.kind === "failed") reject(new Error(message.reason));
    });
  });
  return {
    proxy,
    dataDir,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await gone;
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A request that takes a lot of room: its body does not compress. */
async function askBig(proxy: string): Promise<number> {
  const content = randomBytes(150_000).toString("base64");
  const reply = await sendRequest(`${proxy}/v1/messages`, {
    headers: ["content-type", "application/json", "anthropic-version", "2023-06-01"],
    body: JSON.stringify({ model: "mock-fixed", max_tokens: 5, messages: [{ role: "user", content }] }),
  });
  return reply.status;
}

interface Check {
  readonly name: string;
  readonly ok: boolean;
  readonly detail?: string;
}
async function databaseCheck(proxy: string): Promise<Check> {
  const reply = await fetch(`${proxy}/health/ready`);
  assert.equal(reply.status, 200, "TokenMan stays ready");
  const { checks } = (await reply.json()) as { readonly checks: readonly Check[] };
  return checks.find(({ name }) => name === "database")!;
}

test("fault 28: a full disk: traffic goes on, and what is not recorded is said", async () => {
  await using it = await limitedTo(2_000_000, ["store", "recorder"]);
  let check = await databaseCheck(it.proxy);
  assert.equal(check.ok, true);
  for (let number = 0; check.ok && number < 200; number++) {
    assert.equal(await askBig(it.proxy), 200);
    check = await databaseCheck(it.proxy);
  }
  assert.equal(check.ok, false, "the limit was reached");
  assert.match(check.detail ?? "", /rows wait/);
  for (let number = 0; number < 5; number++) assert.equal(await askBig(it.proxy), 200);
  assert.ok(statSync(join(it.dataDir, "ledger.db")).size <= 2_000_000);
});

test("fault 28: a full disk under a hard budget: what cannot be reserved is not sent", async () => {
  await using it = await limitedTo(2_000_000, ["store", "recorder", "reserving"]);
  const statuses: number[] = [];
  while (statuses.length < 200 && statuses.at(-1) !== 500) statuses.push(await askBig(it.proxy));
  assert.equal(statuses[0], 200);
  assert.equal(statuses.at(-1), 500, "the plugin that reserves fails, and fails closed");
});

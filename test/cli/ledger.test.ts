import assert from "node:assert/strict";
import { existsSync, readFileSync, statSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { Sandbox, type Served } from "./support/instance.ts";

async function ask({ proxy }: Served, content: string, client: string): Promise<string> {
  const reply = await fetch(`${proxy}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", "user-agent": client, "x-tokenman-project": "web" },
    body: JSON.stringify({ model: "mock", messages: [{ role: "user", content }] }),
  });
  await reply.text();
  return reply.headers.get("x-tokenman-request-id")!;
}

test("the ledger's commands, while TokenMan runs and after it has ended", async () => {
  await using sandbox = new Sandbox('store_body = true\n[pricing."mock"]\ninput = 1\noutput = 1\n');
  const nothing = await sandbox.run("ledger", "verify");
  assert.equal(nothing.status, 73);
  assert.match(nothing.stderr, /TM_DATA_DIR there is no ledger/);

  const served = await sandbox.serve();
  const first = await ask(served, "hello", "curl/8");
  await ask(served, "again", '=cmd,"x"');
  // Ended cleanly: all that was recorded is on disk.
  served.child.kill("SIGTERM");
  await served.ended;

  const again = await sandbox.serve();
  const lines = await sandbox.run("ledger", "export", "--bodies");
  assert.equal(lines.status, 0, lines.stderr);
  const rows = lines.stdout
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.deepEqual(
    rows.map(({ client, outcome, tries }) => [client, outcome, tries.length]),
    [
      ["curl/8", "answered", 1],
      ['=cmd,"x"', "answered", 1],
    ],
  );
  assert.equal(rows[0].id, first);
  assert.ok(rows[0].costNanoUsd > 0);
  assert.match(rows[0].bodies.request, /hello/);

  const file = join(sandbox.folder, "out.csv");
  const csv = await sandbox.run("ledger", "export", "--format", "csv", "--out", file, "--since", "1h");
  assert.equal(csv.status, 0, csv.stderr);
  const [head, one, two, ...rest] = readFileSync(file, "utf8").split("\n");
  assert.match(head!, /^id,at,project,/);
  assert.match(one!, new RegExp(`^${first},\\d{4}-.*Z,web,`));
  assert.ok(two!.includes(`"'=cmd,""x"""`), "no formula, and quoted");
  assert.deepEqual(rest, [""]);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  const old = await sandbox.run("ledger", "export", "--until", "2020-01-01");
  assert.equal(old.stdout, "");

  const backup = join(sandbox.folder, "backup.db");
  assert.equal((await sandbox.run("ledger", "export", "--format", "sqlite", "--out", backup)).status, 0);
  const db = new DatabaseSync(backup, { readOnly: true });
  assert.equal(db.prepare("SELECT count(*) AS n FROM request").get()?.["n"], 2);
  db.close();
  assert.equal((await sandbox.run("ledger", "export", "--format", "sqlite", "--out", backup)).status, 64);
  assert.equal((await sandbox.run("ledger", "export", "--format", "xml")).status, 64);
  assert.equal((await sandbox.run("ledger", "export", "--since", "yesterday-ish")).status, 64);

  const sound = await sandbox.run("ledger", "verify");
  assert.equal(sound.status, 0, sound.stderr);
  assert.match(sound.stdout, /is sound/);
  const pruned = await sandbox.run("ledger", "prune", "--older-than", "1d");
  assert.match(pruned.stdout, /^0 requests removed/);
  assert.equal((await sandbox.run("ledger", "prune")).status, 64);
  again.child.kill("SIGTERM");
  await again.ended;

  const ledger = join(sandbox.dataDir, "ledger.db");
  assert.equal(statSync(ledger).mode & 0o777, 0o600);
  assert.ok(!existsSync(`${ledger}-wal`), "a clean end leaves no journal");
  truncateSync(ledger, statSync(ledger).size - 8_192);
  const damaged = await sandbox.run("ledger", "verify");
  assert.equal(damaged.status, 65);
  assert.match(damaged.stderr, /TM_LEDGER_DAMAGED/);
});

/**
 * `make bench-ledger`, or `node scripts/bench/ledger.ts [--rows N] [--data FOLDER] [--seconds N] [--rate N]`: a TokenMan
 * with N requests in its ledger (5 million, made first where FOLDER has none) answers the JSON API while RATE requests a
 * second (500) go through it. Prints how long each question took, how late the event loop was, and by how much the
 * ledger grew. Exit code 1 where a target is missed.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Agent } from "undici";
import {
  announcedPort,
  endChildrenWithUs,
  forkChild,
  freePort,
  spawnChild,
  stopAll,
  waitForHealth,
} from "./children.ts";
import { fillLedger } from "./fill-ledger.ts";
import type { SteadyOrder, SteadyResult } from "./steady.ts";

const ROOT = join(import.meta.dirname, "../..");
/** What a page, a sum and a history may take, 95 times of 100. */
const ANSWER_MS = 50;
const LOOP_DELAY_MS = 10;
const ROW_BYTES = 700;
/** The metrics' window of the loop's delay. */
const WINDOW_MS = 10_000;

/** Of the ledger that fill-ledger.ts makes. */
const QUESTIONS: Readonly<Record<string, string>> = {
  "sums of 30 days": "/api/stats?range=30d",
  "sums of a day": "/api/stats?range=24h",
  "sums of a project": "/api/stats?range=30d&project=project-3",
  "30 days by hour": "/api/stats/history?range=30d&step=1h",
  "30 days by day": "/api/stats/history?range=30d&step=1d",
  "30 days of a project by hour": "/api/stats/history?range=30d&step=1h&project=project-3",
  "projects of 30 days": "/api/projects?range=30d",
  "newest page": "/api/requests",
  "page of a project": "/api/requests?project=project-3",
  "page of a model": "/api/requests?model=llama-4-70b",
  "page of a status": "/api/requests?status=529",
  "page of a class of status": "/api/requests?status=5xx",
  "page of a rare status": "/api/requests?status=302",
  "page of a pair": "/api/requests?project=project-3&status=429",
  "page of a disjoint pair": "/api/requests?provider=local&model=gpt-5.1",
  "page by text": "/api/requests?text=tool_use+ids",
  "page by text and project": "/api/requests?text=overloaded&project=project-3",
};

const { values } = parseArgs({
  options: {
    rows: { type: "string", default: "5000000" },
    data: { type: "string" },
    seconds: { type: "string", default: "30" },
    rate: { type: "string", default: "500" },
  },
});
const [rows, seconds, rate] = [values.rows, values.seconds, values.rate].map(Number) as [
  number,
  number,
  number,
];
endChildrenWithUs();
const folder = mkdtempSync(join(tmpdir(), "tokenman-ledger-"));
const data = values.data ?? join(folder, "data");
try {
  process.exitCode = (await measure()) ? 0 : 1;
} finally {
  await stopAll();
  rmSync(folder, { recursive: true, force: true });
}

async function measure(): Promise<boolean> {
  mkdirSync(data, { recursive: true, mode: 0o700 });
  const file = join(data, "ledger.db");
  if (!existsSync(file)) fillLedger(file, rows, 30, (line) => console.error(line));
  const before = sizeOf(file);
  const { port, dashboard } = await startTokenman();
  const traffic = forkChild(join(import.meta.dirname, "steady.ts"));
  const projects = Array.from({ length: 20 }, (_, number) => `project-${number}`);
  traffic.process.send({ port, rate, projects } satisfies SteadyOrder);
  const { times, late } = await ask(dashboard);
  const result = new Promise<SteadyResult>((resolve) => traffic.process.once("message", resolve));
  traffic.process.send("stop");
  const { sent, failed, reasons, seconds: lasted } = await result;
  await stopAll();
  const after = sizeOf(file);

  const verdicts: boolean[] = [];
  for (const [name, list] of times) {
    const [middle, high, most] = [0.5, 0.95, 1].map((q) => quantile(list, q)) as [number, number, number];
    verdicts.push(high < ANSWER_MS);
    const figures = [middle, high, most].map((ms) => ms.toFixed(1).padStart(7));
    console.log(
      `${name.padEnd(30)} p50 ${figures[0]} ms   p95 ${figures[1]} ms   max ${figures[2]} ms   (${list.length})`,
    );
  }
  const bytes = (after.bytes - before.bytes) / (after.rows - before.rows);
  const worst = Math.max(...late);
  verdicts.push(failed === 0, worst < LOOP_DELAY_MS, bytes < ROW_BYTES, after.rows - before.rows === sent);
  console.log(
    `${before.rows} requests before; ${Math.round(sent / lasted)} a second went through, ${sent} in all, ${failed} failed ${reasons.join("; ")}`,
  );
  console.log(`${after.rows - before.rows} of them are in the ledger, ${bytes.toFixed(0)} bytes each`);
  console.log(
    `loop delay p99, by windows of ${WINDOW_MS / 1_000} s: ${late.map((ms) => ms.toFixed(1)).join(", ")} ms`,
  );
  const met = verdicts.every(Boolean);
  console.log(met ? "all targets are met" : "a target is missed");
  return met;
}

async function startTokenman(): Promise<{ port: number; dashboard: number }> {
  const upstream = await announcedPort(
    spawnChild(process.execPath, [join(import.meta.dirname, "upstream.ts")]),
  );
  const port = await freePort();
  const dashboard = await freePort();
  const config = join(folder, "tokenman.toml");
  writeFileSync(
    config,
    [
      `[server]\nproxy_port = ${port}\ndashboard_port = ${dashboard}\ndata_dir = ${JSON.stringify(data)}`,
      `[providers.up]\nformat = "openai"\napi_base = "http://127.0.0.1:${upstream}"\nauth = "client"`,
      '[routing]\ndefault_provider = "up"',
      "[metrics]\nretention_days = 0",
      `[access_log]\nfile = ${JSON.stringify(join(folder, "access.log"))}\n`,
    ].join("\n"),
  );
  const built = join(ROOT, "bin", "tokenman");
  const [command, first] = existsSync(built)
    ? [built, []]
    : [process.execPath, [join(ROOT, "cli", "main.ts")]];
  const child = spawnChild(command, [...first, "start", "--foreground", "--config", config]);
  await waitForHealth(child, port, "/health");
  return { port, dashboard };
}

/** Asks one question after another until the time is over; by question, how many milliseconds each answer took. */
async function ask(dashboard: number): Promise<{ times: Map<string, number[]>; late: number[] }> {
  const agent = new Agent({ connections: 1 });
  const get = async (path: string): Promise<string> => {
    const reply = await agent.request({ origin: `http://127.0.0.1:${dashboard}`, path, method: "GET" });
    const text = await reply.body.text();
    if (reply.statusCode !== 200)
      throw new Error(`${path}: status ${reply.statusCode}: ${text.slice(0, 200)}`);
    return text;
  };
  const times = new Map(
    [...Object.keys(QUESTIONS), "pages, one after another"].map((name) => [name, [] as number[]]),
  );
  const timed = async (name: string, path: string): Promise<string> => {
    const at = performance.now();
    const text = await get(path);
    times.get(name)!.push(performance.now() - at);
    return text;
  };
  // Threads and caches warm up first.
  for (const path of Object.values(QUESTIONS)) await get(path);
  await delay(2_000);
  const late: number[] = [];
  const end = performance.now() + Math.max(seconds * 1_000, 2.5 * WINDOW_MS);
  let window = performance.now() + WINDOW_MS;
  let cursor = "";
  while (performance.now() < end) {
    for (const [name, path] of Object.entries(QUESTIONS)) await timed(name, path);
    const page = JSON.parse(await timed("pages, one after another", `/api/requests${cursor}`)) as {
      next: string | null;
    };
    cursor = page.next === null ? "" : `?cursor=${encodeURIComponent(page.next)}`;
    if (performance.now() < window) continue;
    window += WINDOW_MS;
    const found = /^tokenman_event_loop_delay_p99_seconds (\S+)$/m.exec(await get("/metrics"));
    if (found !== null) late.push(Number(found[1]) * 1_000);
  }
  await agent.close();
  return { times, late };
}

/** Of the ledger: what it takes on the disk, and how many requests it has. */
function sizeOf(file: string): { bytes: number; rows: number } {
  const db = new DatabaseSync(file, { readOnly: true });
  const number = (sql: string): number => Number(Object.values(db.prepare(sql).get()!)[0]);
  const bytes = number("PRAGMA page_count") * number("PRAGMA page_size");
  const counted = number("SELECT total(requests) FROM daily_total");
  db.close();
  return { bytes, rows: counted };
}

function quantile(list: readonly number[], q: number): number {
  const sorted = list.toSorted((left, right) => left - right);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN;
}

/**
 * `node scripts/bench/ledger.ts FILE [SECONDS] [RATE]`: how fast a filled ledger answers the API's questions while RATE
 * requests a second (500) are written to it, and what that costs the thread that proxies.
 */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "@tokenman/plugin-sdk";
import { SqliteLedger } from "../../plugins/store/sqlite-ledger.ts";
import { madeUp } from "./fill-ledger.ts";

const DAY_MS = 86_400_000;
const log: Logger = {
  trace() {},
  debug() {},
  info() {},
  warn: (facts, message) => console.error(message, facts),
  error: (facts, message) => console.error(message, facts),
};

const [file, seconds = "20", rate = "500"] = process.argv.slice(2);
if (file === undefined) throw new Error("which file?");
const settings = { file, bootId: `bench-${process.pid}`, synchronous: "normal" } as const;
const ledger = await SqliteLedger.open({ ...settings, retention: { days: 0, bodyDays: 0 } }, log);

const month = (): { from: number; to: number } => ({ from: Date.now() - 30 * DAY_MS, to: Date.now() });
let cursor: string | undefined;
/** Goes through the pages one after another, as a reader who scrolls does. */
async function nextPage(filter: Parameters<SqliteLedger["page"]>[0]): Promise<void> {
  const page = await ledger.page(filter, cursor === undefined ? {} : { cursor });
  cursor = page.next;
}
let reservations = 0;
const window = { scope: "total", period: "monthly", from: 0, to: 4e12, limitNanoUsd: 1e15 } as const;
const questions: Readonly<Record<string, () => Promise<unknown>>> = {
  "totals, 30 days": () => ledger.totals(month()),
  "totals, 24 hours": () => ledger.totals({ from: Date.now() - DAY_MS, to: Date.now() }),
  "totals of a project, 30 days": () => ledger.totals(month(), { project: "project-3" }),
  "history, 30 days by hour": () => ledger.history(month(), 3_600_000),
  "history, 30 days by day": () => ledger.history(month(), DAY_MS),
  "history of a project by hour": () => ledger.history(month(), 3_600_000, { project: "project-3" }),
  "history, 1 day by minute": () => ledger.history({ from: Date.now() - DAY_MS, to: Date.now() }, 60_000),
  "projects, 30 days": () => ledger.groups("project", month()),
  "providers, 30 days": () => ledger.groups("provider", month()),
  "page, newest": () => ledger.page({}),
  "pages, one after another": () => nextPage({}),
  "page of a project": () => ledger.page({ project: "project-3" }),
  "page of a status": () => ledger.page({ status: 529 }),
  "page of a class of status": () => ledger.page({ status: 5 }),
  "page of a pair": () => ledger.page({ project: "project-3", status: 429 }),
  "page of a disjoint pair": () => ledger.page({ provider: "local", model: "gpt-5.1" }),
  "page of a rare status": () => ledger.page({ status: 302 }),
  "page by text": () => ledger.page({ text: "tool_use ids" }),
  "page by text and project": () => ledger.page({ text: "overloaded", project: "project-3" }),
  // A reservation stands behind whatever the writer is doing.
  "a reservation": () => {
    const id = `${settings.bootId}-${++reservations}`;
    return ledger.reserve({ id, exchangeId: id, at: Date.now(), nanoUsd: 1, windows: [window] });
  },
  "a request": async () => {
    const { rows } = await ledger.page({}, { limit: 1 });
    return ledger.request(rows[0]!.id);
  },
};

let writing = true;
let written = 0;
/** What handing over a row costs the thread that proxies. */
let handing = 0;
const loop = monitorEventLoopDelay({ resolution: 1 });
async function write(): Promise<void> {
  const began = performance.now();
  while (writing) {
    await delay(5);
    const due = Math.floor(((performance.now() - began) / 1_000) * Number(rate));
    for (; written < due; written++) {
      const { begin, end } = madeUp(written, Date.now());
      const at = performance.now();
      ledger.begin(begin);
      ledger.end(end);
      handing += performance.now() - at;
    }
  }
}

const times = new Map<string, number[]>();
for (const name of Object.keys(questions)) times.set(name, []);
// Threads and caches warm up first.
for (const ask of Object.values(questions)) await ask();
loop.enable();
const writer = write();
const end = performance.now() + Number(seconds) * 1_000;
while (performance.now() < end) {
  for (const [name, ask] of Object.entries(questions)) {
    const at = performance.now();
    await ask();
    times.get(name)!.push(performance.now() - at);
  }
  await delay(1);
}
writing = false;
await writer;
loop.disable();
await ledger.flush();
const { lost, waiting } = ledger.state;
await ledger.close();

const quantile = (list: readonly number[], q: number): number =>
  list.toSorted((left, right) => left - right)[Math.min(list.length - 1, Math.floor(list.length * q))] ?? 0;
for (const [name, list] of times) {
  const [middle, high, most] = [0.5, 0.95, 1].map((q) => quantile(list, q).toFixed(1).padStart(7));
  console.log(`${name.padEnd(32)} p50 ${middle} ms   p95 ${high} ms   max ${most} ms   (${list.length})`);
}
console.log(
  `${written} requests written, ${((handing / written) * 1_000).toFixed(1)} µs each to hand over; ${lost} lost, ${waiting} waiting; loop delay p99 ${(loop.percentile(99) / 1e6 - 1).toFixed(1)} ms`,
);

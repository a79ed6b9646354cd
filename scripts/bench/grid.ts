/**
 * The grid: every cell (body size × reply × concurrency) against every subject, in rounds, the subjects of a cell one
 * right after the other, so that what else the machine does hits all of them alike.
 */
import type { Generator } from "./generator.ts";
import type { LoopJob } from "./job.ts";
import { type BenchDialect, BUFFERED, type ReplySpec } from "./replies.ts";
import type { Subject } from "./subjects.ts";
import type { UpstreamStats } from "./upstream.ts";

/** Streams of the grid: as fast as they go, each event its own write. */
const STREAMED: ReplySpec = { events: 40, delayMs: 0 };
/** The streams that events are counted on are paced, so that events arrive one by one, as from a model. */
const PACED: ReplySpec = { events: 200, delayMs: 4 };

export interface Cell {
  /** `2 KB buffered c32`, or `events`. */
  name: string;
  bodyBytes: number;
  reply: ReplySpec;
  concurrency: number;
}

/** One measurement of one cell. Times in microseconds, per request (per event in the events cell). */
export interface Sample {
  requestsPerSecond: number;
  p50Us: number;
  p99Us: number;
  firstByteP50Us: number;
  cpuUs: number;
  mainCpuUs: number;
  /** NaN where it could not be read. */
  loopUs: number;
  completed: number;
  failed: number;
  reasons: string[];
}

/** By cell name, then by subject, one sample a round. */
export type GridResult = Map<string, Map<Subject["name"], Sample[]>>;

export const CONCURRENT = 32;

export function cellName(bodyBytes: number, streamed: boolean, concurrency: number): string {
  return `${Math.round(bodyBytes / 1_024)} KB ${streamed ? "streamed" : "buffered"} c${concurrency}`;
}

export const EVENTS_CELL = "events";

export function cells(sizes: readonly number[]): Cell[] {
  const grid = sizes.flatMap((bodyBytes) =>
    [BUFFERED, STREAMED].flatMap((reply) =>
      [1, CONCURRENT].map((concurrency) => ({
        name: cellName(bodyBytes, reply.events > 0, concurrency),
        bodyBytes,
        reply,
        concurrency,
      })),
    ),
  );
  return [...grid, { name: EVENTS_CELL, bodyBytes: 2_048, reply: PACED, concurrency: CONCURRENT }];
}

export interface GridPlan {
  cells: readonly Cell[];
  subjects: readonly Subject[];
  generator: Generator;
  dialect: BenchDialect;
  seconds: number;
  rounds: number;
  upstreamStats(): Promise<UpstreamStats>;
  progress(text: string): void;
}

/** Measures the whole plan. What a subject does wrong is in its samples. */
export async function runGrid(plan: GridPlan): Promise<GridResult> {
  for (const subject of plan.subjects) await warmUp(plan, subject);
  const result: GridResult = new Map(plan.cells.map((cell) => [cell.name, new Map()]));
  for (let round = 1; round <= plan.rounds; round++) {
    for (const cell of plan.cells) {
      plan.progress(`round ${round}/${plan.rounds}: ${cell.name}`);
      // Forth and back, so that no subject always comes right after the same neighbour.
      const order = round % 2 === 1 ? plan.subjects : plan.subjects.toReversed();
      for (const subject of order) {
        const samples = result.get(cell.name)?.get(subject.name) ?? [];
        samples.push(await measure(plan, cell, subject));
        result.get(cell.name)?.set(subject.name, samples);
      }
    }
  }
  return result;
}

/** V8's compiler threads are at work for so long, and their time counts as the subject's. */
const WARM_MS = 4_000;

/** Lets the compiler see the hot path before anything is measured: small and large bodies, buffered and streamed. */
async function warmUp(plan: GridPlan, subject: Subject): Promise<void> {
  plan.progress(`warming up ${subject.name}`);
  const sizes = new Set(plan.cells.map((cell) => cell.bodyBytes));
  for (const bodyBytes of sizes) {
    for (const reply of [BUFFERED, STREAMED]) {
      const job = jobFor(plan, subject, { name: "", bodyBytes, reply, concurrency: 8 });
      const maxMs = Math.max(plan.seconds * 1_000, plan.rounds > 1 ? WARM_MS : 0);
      await plan.generator.run({ ...job, maxMs, maxRequests: 60_000 });
    }
  }
}

function jobFor(plan: GridPlan, subject: Subject, cell: Cell): LoopJob {
  return {
    kind: "loop",
    port: subject.port,
    headers: subject.headers,
    dialect: plan.dialect,
    reply: cell.reply,
    verify: subject.exact ? "bytes" : "content",
    bodyBytes: cell.bodyBytes,
    concurrency: cell.concurrency,
    // Few events come in a second when they are paced.
    maxMs: plan.seconds * 1_000 * (cell.name === EVENTS_CELL ? 2 : 1),
    maxRequests: 1_000_000,
  };
}

async function measure(plan: GridPlan, cell: Cell, subject: Subject): Promise<Sample> {
  const statsBefore = await plan.upstreamStats();
  const before = await subject.read();
  const load = await plan.generator.run(jobFor(plan, subject, cell));
  const after = await subject.read();
  const stats = await plan.upstreamStats();
  const reasons = [...load.reasons];
  let { failed } = load;
  // Every request must have reached the upstream, whole: an answer from a cache would be no measurement of a proxy.
  const arrived = stats.requests - statsBefore.requests;
  if (failed === 0 && arrived !== load.completed) {
    failed += Math.abs(arrived - load.completed);
    reasons.push(`${arrived} requests reached the upstream of ${load.completed} sent`);
  }
  const bytes = stats.bodyBytes - statsBefore.bodyBytes;
  if (failed === 0 && subject.exact && bytes !== load.sentBytes) {
    failed++;
    reasons.push(`${bytes} body bytes reached the upstream of ${load.sentBytes} sent`);
  }
  const units = load.completed * (cell.name === EVENTS_CELL ? cell.reply.events : 1);
  const per = (from: number, to: number): number => (units === 0 ? Number.NaN : (to - from) / units);
  return {
    requestsPerSecond: (load.completed / load.elapsedMs) * 1_000,
    p50Us: load.latency.p50,
    p99Us: load.latency.p99,
    firstByteP50Us: load.firstByte.p50,
    cpuUs: per(before.cpuUs, after.cpuUs),
    mainCpuUs: per(before.mainUs, after.mainUs),
    loopUs: per(before.loopUs ?? Number.NaN, after.loopUs ?? Number.NaN),
    completed: load.completed,
    failed,
    reasons,
  };
}

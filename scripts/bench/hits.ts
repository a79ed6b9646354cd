/** `--hits`: what a request costs that the response cache answers, against the floor, which sends each one upstream. */
import type { Generator } from "./generator.ts";
import { CONCURRENT } from "./grid.ts";
import type { LoopJob } from "./job.ts";
import { type BenchDialect, BUFFERED, type ReplySpec } from "./replies.ts";
import { median, medianRatio } from "./statistics.ts";
import type { Subject } from "./subjects.ts";
import { table } from "./table.ts";

const STREAMED: ReplySpec = { events: 40, delayMs: 0 };
/** DESIGN's bound for a hit, in the floor's CPU. */
const CEILING = 0.5;

export interface HitsPlan {
  readonly subjects: readonly Subject[];
  readonly generator: Generator;
  readonly dialect: BenchDialect;
  readonly sizes: readonly number[];
  readonly seconds: number;
  readonly rounds: number;
  progress(text: string): void;
}

/** One body size and kind of reply at one subject; medians over the rounds, ratios to the floor in the same round. */
export interface HitsRow {
  readonly bodyBytes: number;
  readonly streamed: boolean;
  readonly subject: Subject["name"];
  readonly cpuUs: number;
  readonly cpuRatio: number;
  /** At concurrency 1. */
  readonly p50Us: number;
  readonly p50Ratio: number;
  readonly failed: number;
}

interface Sample {
  readonly cpuUs: number;
  readonly p50Us: number;
  readonly failed: number;
}

export async function measureHits(plan: HitsPlan): Promise<HitsRow[]> {
  const rows: HitsRow[] = [];
  for (const bodyBytes of plan.sizes) {
    for (const reply of [BUFFERED, STREAMED]) {
      const samples = new Map<Subject, Sample[]>(plan.subjects.map((subject) => [subject, []]));
      for (let round = 0; round <= plan.rounds; round++) {
        plan.progress(`hits, round ${round}/${plan.rounds}: ${bodyBytes} bytes, ${reply.events} events`);
        for (const subject of plan.subjects) {
          const sample = await measure(plan, subject, bodyBytes, reply);
          // The round before the first warms up.
          if (round > 0) samples.get(subject)?.push(sample);
        }
      }
      rows.push(...rowsOf(bodyBytes, reply.events > 0, samples));
    }
  }
  return rows;
}

async function measure(
  plan: HitsPlan,
  subject: Subject,
  bodyBytes: number,
  reply: ReplySpec,
): Promise<Sample> {
  const job = (concurrency: number): LoopJob => ({
    kind: "loop",
    port: subject.port,
    headers: subject.headers,
    dialect: plan.dialect,
    reply,
    verify: "bytes",
    bodyBytes,
    concurrency,
    maxMs: plan.seconds * 1_000,
    maxRequests: 1_000_000,
    // The floor has nothing to answer from: it sends what it gets.
    repeats: true,
  });
  const alone = await plan.generator.run(job(1));
  const before = await subject.read();
  const loaded = await plan.generator.run(job(CONCURRENT));
  const after = await subject.read();
  return {
    cpuUs: (after.cpuUs - before.cpuUs) / loaded.completed,
    p50Us: alone.latency.p50,
    failed: alone.failed + loaded.failed,
  };
}

function rowsOf(bodyBytes: number, streamed: boolean, samples: ReadonlyMap<Subject, Sample[]>): HitsRow[] {
  const of = (subject: Subject | undefined, key: keyof Sample): number[] =>
    (subject === undefined ? [] : (samples.get(subject) ?? [])).map((sample) => sample[key]);
  const floor = [...samples.keys()].find(({ name }) => name === "floor");
  return [...samples.keys()].map((subject) => ({
    bodyBytes,
    streamed,
    subject: subject.name,
    cpuUs: median(of(subject, "cpuUs")),
    cpuRatio: medianRatio(of(subject, "cpuUs"), of(floor, "cpuUs")),
    p50Us: median(of(subject, "p50Us")),
    p50Ratio: medianRatio(of(subject, "p50Us"), of(floor, "p50Us")),
    failed: of(subject, "failed").reduce((sum, count) => sum + count, 0),
  }));
}

export function renderHits(rows: readonly HitsRow[]): string {
  const head = ["body", "reply", "subject", "CPU µs/req", "×floor", "p50 µs", "×floor", "failed"];
  const number = (value: number): string => value.toFixed(0);
  const times = (value: number): string => `${value.toFixed(2)}×`;
  const lines = rows.map((row) => [
    `${Math.round(row.bodyBytes / 1_024)} KB`,
    row.streamed ? "streamed" : "buffered",
    row.subject,
    number(row.cpuUs),
    times(row.cpuRatio),
    number(row.p50Us),
    times(row.p50Ratio),
    String(row.failed),
  ]);
  const wanted = `Wanted of a hit: CPU ≤ ${times(CEILING)} of the floor's, p50 below the floor's.`;
  return `${table(head, lines, 3)}\n\n${wanted}\n`;
}

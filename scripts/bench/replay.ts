/**
 * `--session FILE`: the growing body of a recorded agent session, turn after turn, through each subject. Sixteen
 * stretches of turns go to the subjects in turn, so that each one sees the whole session in order and the machine's
 * moods hit all alike.
 */
import type { Generator } from "./generator.ts";
import type { BenchDialect, ReplySpec } from "./replies.ts";
import type { Subject } from "./subjects.ts";
import { table } from "./table.ts";

const STRETCHES = 16;
const QUARTERS = 4;
const REPLY: ReplySpec = { events: 40, delayMs: 0 };

export interface ReplayResult {
  subject: Subject["name"];
  turns: number;
  bodyBytes: number;
  cpuUs: number;
  mainCpuUs: number;
  loopUs: number;
  /** CPU per turn in each quarter of the session, in microseconds. */
  quarterUs: number[];
  failed: number;
  reasons: string[];
}

export async function replaySession(
  file: string,
  turns: number,
  subjects: readonly Subject[],
  generator: Generator,
  dialect: BenchDialect,
): Promise<ReplayResult[]> {
  const results = subjects.map(
    (subject): ReplayResult => ({
      subject: subject.name,
      turns,
      bodyBytes: 0,
      cpuUs: 0,
      mainCpuUs: 0,
      loopUs: 0,
      quarterUs: new Array<number>(QUARTERS).fill(0),
      failed: 0,
      reasons: [],
    }),
  );
  for (const { port, headers } of subjects) {
    // Another conversation first, so that the compiler's work is not the session's first quarter.
    const warm = { port, headers, dialect, reply: REPLY, verify: "content", bodyBytes: 61_440 } as const;
    await generator.run({ kind: "loop", ...warm, concurrency: 4, maxMs: 1_000, maxRequests: 5_000 });
  }
  const border = (stretch: number): number => Math.round((turns * stretch) / STRETCHES);
  for (let stretch = 0; stretch < STRETCHES; stretch++) {
    const [from, to] = [border(stretch), border(stretch + 1)];
    const quarter = Math.floor((stretch * QUARTERS) / STRETCHES);
    for (const [index, subject] of subjects.entries()) {
      const result = results[index]!;
      const before = await subject.read();
      const verify = subject.exact ? "bytes" : "content";
      const { port, headers } = subject;
      const load = await generator.run({
        kind: "session",
        port,
        headers,
        dialect,
        reply: REPLY,
        verify,
        file,
        from,
        to,
      });
      const after = await subject.read();
      const cpuUs = after.cpuUs - before.cpuUs;
      result.cpuUs += cpuUs;
      result.mainCpuUs += after.mainUs - before.mainUs;
      result.loopUs += (after.loopUs ?? Number.NaN) - (before.loopUs ?? Number.NaN);
      result.quarterUs[quarter]! += cpuUs;
      result.bodyBytes += load.sentBytes;
      result.failed += load.failed;
      result.reasons.push(...load.reasons);
    }
  }
  for (const result of results) {
    for (let quarter = 0; quarter < QUARTERS; quarter++) {
      const first = border((quarter * STRETCHES) / QUARTERS);
      const count = border(((quarter + 1) * STRETCHES) / QUARTERS) - first;
      result.quarterUs[quarter]! /= count;
    }
  }
  return results;
}

export function renderReplay(results: readonly ReplayResult[]): string {
  const floor = results.find((result) => result.subject === "floor");
  const times = (value: number, base: number | undefined): string =>
    base === undefined ? "" : ` (${(value / base).toFixed(2)}×)`;
  const rows = results.map((result) => [
    result.subject,
    String(result.turns),
    (result.bodyBytes / 1e6).toFixed(0),
    `${(result.cpuUs / 1_000).toFixed(0)}${times(result.cpuUs, floor?.cpuUs)}`,
    `${(result.loopUs / 1_000).toFixed(0)}${times(result.loopUs, floor?.loopUs)}`,
    ...result.quarterUs.map((us, quarter) => `${us.toFixed(0)}${times(us, floor?.quarterUs[quarter])}`),
    String(result.failed),
  ]);
  const head = [
    "subject",
    "turns",
    "sent MB",
    "CPU ms",
    "loop ms",
    "Q1 µs/turn",
    "Q2 µs/turn",
    "Q3 µs/turn",
    "Q4 µs/turn",
    "failed",
  ];
  const failures = results.flatMap((result) =>
    result.failed > 0 ? [`${result.subject}: ${[...new Set(result.reasons)].slice(0, 3).join("; ")}`] : [],
  );
  return `${[table(head, rows), "CPU per turn in each quarter of the session; in brackets the ratio to the floor.", ...failures].join("\n\n")}\n`;
}

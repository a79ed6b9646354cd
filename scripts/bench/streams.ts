/** `--streams N`: N streams at once, one event a second each, through each subject, one subject at a time. */
import type { Generator } from "./generator.ts";
import type { BenchDialect, ReplySpec } from "./replies.ts";
import type { Subject } from "./subjects.ts";
import { megabytes, table } from "./table.ts";

const SLOW: ReplySpec = { events: 20, delayMs: 1_000 };
const RAMP_MS = 2_000;

export interface StreamsResult {
  subject: Subject["name"];
  streams: number;
  /** Streams that brought every event, byte for byte. */
  complete: number;
  idleBytes: number;
  peakBytes: number;
  cpuMs: number;
  elapsedMs: number;
  reasons: string[];
}

export async function holdStreams(
  streams: number,
  subject: Subject,
  generator: Generator,
  dialect: BenchDialect,
): Promise<StreamsResult> {
  subject.resetPeak();
  const idle = subject.memory();
  const before = await subject.read();
  const load = await generator.run({
    kind: "loop",
    port: subject.port,
    headers: subject.headers,
    dialect,
    reply: SLOW,
    verify: subject.exact ? "bytes" : "content",
    bodyBytes: 2_048,
    concurrency: streams,
    maxMs: RAMP_MS + 10_000,
    maxRequests: streams,
    rampMs: RAMP_MS,
  });
  const after = await subject.read();
  return {
    subject: subject.name,
    streams,
    complete: load.completed,
    idleBytes: idle.rssBytes,
    peakBytes: subject.memory().peakBytes,
    cpuMs: (after.cpuUs - before.cpuUs) / 1_000,
    elapsedMs: load.elapsedMs,
    reasons: load.reasons,
  };
}

export function renderStreams(results: readonly StreamsResult[]): string {
  const rows = results.map((result) => [
    result.subject,
    String(result.streams),
    String(result.complete),
    megabytes(result.idleBytes),
    megabytes(result.peakBytes),
    result.cpuMs.toFixed(0),
    (result.elapsedMs / 1_000).toFixed(1),
  ]);
  const head = ["subject", "streams", "complete", "RSS before MB", "RSS peak MB", "CPU ms", "seconds"];
  const failures = results.flatMap(({ subject, reasons }) =>
    reasons.map((reason) => `${subject}: ${reason}`),
  );
  return `${[table(head, rows), ...failures].join("\n\n")}\n`;
}

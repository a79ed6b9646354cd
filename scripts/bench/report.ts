/** From samples to the numbers that are printed: per subject and row, medians and ratios to the floor. */
import { CONCURRENT, cellName, EVENTS_CELL, type GridResult, type Sample } from "./grid.ts";
import { median, medianDifference, medianRatio } from "./statistics.ts";
import type { Subject, SubjectName } from "./subjects.ts";

export interface Row {
  bodyBytes: number;
  streamed: boolean;
  subject: Subject["name"];
  requestsPerSecond: number;
  requestsRatio: number;
  /** Over the upstream without a proxy, at concurrency 1, in microseconds. */
  addedP50Us: number;
  addedP99Us: number;
  addedFirstByteUs: number;
  /** At concurrency 32. */
  cpuUs: number;
  cpuRatio: number;
  /** At concurrency 1, where little else holds the loop up. */
  loopUs: number;
  loopRatio: number;
  failed: number;
  reasons: string[];
}

export interface ProcessRow {
  subject: SubjectName;
  eventCpuUs: number;
  eventCpuRatio: number;
  idleBytes: number;
  peakBytes: number;
  startupMs: number;
}

/** What a subject used, measured outside the grid. */
export interface Footprint {
  idleBytes: number;
  peakBytes: number;
  startupMs: number;
}

export interface Verdict {
  what: string;
  target: string;
  found: string;
  met: boolean;
}

export interface Report {
  rows: Row[];
  processes: ProcessRow[];
  /** Subjects that could not be started, with the reason. */
  unavailable: [SubjectName, string][];
  verdicts: Verdict[];
}

export function buildReport(
  result: GridResult,
  sizes: readonly number[],
  footprints: ReadonlyMap<SubjectName, Footprint>,
  unavailable: [SubjectName, string][],
): Report {
  const rows = sizes.flatMap((bodyBytes) =>
    [false, true].flatMap((streamed) => rowsOf(result, bodyBytes, streamed)),
  );
  const events = result.get(EVENTS_CELL);
  const floor = values(events?.get("floor"), "cpuUs");
  const processes = [...footprints].map(([subject, footprint]) => {
    const own = values(events?.get(subject), "cpuUs");
    return { subject, eventCpuUs: median(own), eventCpuRatio: medianRatio(own, floor), ...footprint };
  });
  const made = [...verdicts(rows, processes), ...addedBy(result, sizes)];
  return { rows, processes, unavailable, verdicts: made };
}

/** What each part of the features may add to the one before it, in floors (the design's columns). */
const PARTS: readonly {
  readonly part: SubjectName;
  readonly over: SubjectName;
  readonly smallCpu: number;
  readonly largeLoop: number;
  readonly eventCpu: number;
}[] = [
  { part: "ledger", over: "kernel", smallCpu: 0.25, largeLoop: 0.4, eventCpu: 0.1 },
  { part: "resilience", over: "ledger", smallCpu: 0.1, largeLoop: 0, eventCpu: 0 },
  { part: "saving", over: "resilience", smallCpu: 0.15, largeLoop: 0.5, eventCpu: 0.1 },
];
/** What "nothing" may come out as: two runs of the same proxy differ by so much. */
const NOISE: Record<"cpuUs" | "loopUs", number> = { cpuUs: 0.03, loopUs: 0.1 };

function addedBy(result: GridResult, sizes: readonly number[]): Verdict[] {
  const made: Verdict[] = [];
  const compare = (
    what: string,
    cell: string,
    key: "cpuUs" | "loopUs",
    part: (typeof PARTS)[number],
    most: number,
  ) => {
    const samples = result.get(cell);
    const floor = values(samples?.get("floor"), key);
    const before = values(samples?.get(part.over), key);
    const added = values(samples?.get(part.part), key).map(
      (value, round) => value - (before[round] ?? Number.NaN),
    );
    const ratio = medianRatio(added, floor);
    if (Number.isNaN(ratio)) return;
    const met = ratio <= Math.max(most, NOISE[key]);
    made.push({
      what: `${part.part} adds, ${what}`,
      target: `≤ ${most.toFixed(2)}×`,
      found: `${ratio.toFixed(2)}×`,
      met,
    });
  };
  for (const part of PARTS) {
    for (const bytes of sizes) {
      const size = `${Math.round(bytes / 1_024)} KB buffered`;
      if (bytes <= SMALL_BYTES)
        compare(`${size}: CPU`, cellName(bytes, false, CONCURRENT), "cpuUs", part, part.smallCpu);
      if (bytes >= LARGE_BYTES)
        compare(`${size}: loop time`, cellName(bytes, false, 1), "loopUs", part, part.largeLoop);
    }
    compare("streamed event: CPU", EVENTS_CELL, "cpuUs", part, part.eventCpu);
  }
  return made;
}

function rowsOf(result: GridResult, bodyBytes: number, streamed: boolean): Row[] {
  const single = result.get(cellName(bodyBytes, streamed, 1));
  const many = result.get(cellName(bodyBytes, streamed, CONCURRENT));
  if (single === undefined || many === undefined) return [];
  const direct = single.get("direct");
  return [...many.keys()].map((subject) => {
    const alone = single.get(subject) ?? [];
    const loaded = many.get(subject) ?? [];
    const added = (key: "p50Us" | "p99Us" | "firstByteP50Us") =>
      medianDifference(values(alone, key), values(direct, key));
    const ratio = (cell: typeof many, key: "requestsPerSecond" | "cpuUs" | "loopUs") =>
      medianRatio(values(cell.get(subject), key), values(cell.get("floor"), key));
    const samples = [...alone, ...loaded];
    return {
      bodyBytes,
      streamed,
      subject,
      requestsPerSecond: median(values(loaded, "requestsPerSecond")),
      requestsRatio: ratio(many, "requestsPerSecond"),
      addedP50Us: added("p50Us"),
      addedP99Us: added("p99Us"),
      addedFirstByteUs: added("firstByteP50Us"),
      cpuUs: median(values(loaded, "cpuUs")),
      cpuRatio: ratio(many, "cpuUs"),
      loopUs: median(values(alone, "loopUs")),
      loopRatio: ratio(single, "loopUs"),
      failed: samples.reduce((sum, sample) => sum + sample.failed, 0),
      reasons: [...new Set(samples.flatMap((sample) => sample.reasons))].slice(0, 3),
    };
  });
}

function values(samples: readonly Sample[] | undefined, key: keyof Omit<Sample, "reasons">): number[] {
  return (samples ?? []).map((sample) => sample[key]);
}

/** The greatest ratio to the floor that the design allows a variant; nothing where it sets none. */
const CEILINGS: Partial<Record<SubjectName, { smallCpu: number; largeLoop: number; eventCpu: number }>> = {
  kernel: { smallCpu: 1.25, largeLoop: 1.2, eventCpu: 1.3 },
  default: { smallCpu: 2, largeLoop: 2.5, eventCpu: 1.8 },
};
const SMALL_BYTES = 4_096;
const LARGE_BYTES = 400_000;
const ADDED_P50_US = 500;
const PORTKEY_FACTOR = 5;
const IDLE_BYTES = 120e6;
const STARTUP_MS = 600;

function verdicts(rows: readonly Row[], processes: readonly ProcessRow[]): Verdict[] {
  const made: Verdict[] = [];
  const atMost = (what: string, value: number, most: number, show: (value: number) => string): void => {
    if (!Number.isNaN(value))
      made.push({ what, target: `≤ ${show(most)}`, found: show(value), met: value <= most });
  };
  const times = (value: number): string => `${value.toFixed(2)}×`;
  const ms = (value: number): string => `${value.toFixed(value < 10 ? 2 : 0)} ms`;
  for (const row of rows) {
    const ceiling = row.subject === "direct" ? undefined : CEILINGS[row.subject];
    if (ceiling === undefined) continue;
    const name = `${row.subject}, ${Math.round(row.bodyBytes / 1_024)} KB ${row.streamed ? "streamed" : "buffered"}`;
    if (row.failed > 0)
      made.push({ what: `${name}: failed`, target: "0", found: String(row.failed), met: false });
    if (!row.streamed && row.bodyBytes <= SMALL_BYTES)
      atMost(`${name}: CPU`, row.cpuRatio, ceiling.smallCpu, times);
    if (!row.streamed && row.bodyBytes >= LARGE_BYTES)
      atMost(`${name}: loop time`, row.loopRatio, ceiling.largeLoop, times);
    if (row.bodyBytes <= SMALL_BYTES)
      atMost(`${name}: added p50`, row.addedP50Us / 1_000, ADDED_P50_US / 1_000, ms);
    const portkey = rows.find(
      (other) =>
        other.subject === "portkey" && other.bodyBytes === row.bodyBytes && other.streamed === row.streamed,
    );
    // Streams are not in this target: there the events' own system calls bound every proxy, the floor too.
    if (portkey !== undefined && !row.streamed) {
      const factor = row.requestsPerSecond / portkey.requestsPerSecond;
      const met = factor >= PORTKEY_FACTOR;
      made.push({
        what: `${name}: requests/s over Portkey's`,
        target: `≥ ${PORTKEY_FACTOR}×`,
        found: times(factor),
        met,
      });
    }
  }
  for (const row of processes) {
    const ceiling = CEILINGS[row.subject];
    if (ceiling === undefined) continue;
    atMost(`${row.subject}: CPU per streamed event`, row.eventCpuRatio, ceiling.eventCpu, times);
    atMost(
      `${row.subject}: RSS idle`,
      row.idleBytes / 1e6,
      IDLE_BYTES / 1e6,
      (value) => `${value.toFixed(0)} MB`,
    );
    atMost(`${row.subject}: start-up`, row.startupMs, STARTUP_MS, ms);
  }
  return made;
}

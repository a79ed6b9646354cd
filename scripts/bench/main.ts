/**
 * `make bench`: measures the floor, TokenMan and Portkey against one loopback upstream and prints tables of medians
 * and ratios. See README.md for what is measured and how to read it.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { announcedPort, endChildrenWithUs, spawnChild, stopAll } from "./children.ts";
import { startGenerator } from "./generator.ts";
import { cells, runGrid } from "./grid.ts";
import { measureHits, renderHits } from "./hits.ts";
import { type BenchOptions, parseOptions, USAGE } from "./options.ts";
import { renderReplay, replaySession } from "./replay.ts";
import { buildReport, type Footprint, type Report } from "./report.ts";
import { readSession } from "./session.ts";
import { median } from "./statistics.ts";
import { holdStreams, renderStreams, type StreamsResult } from "./streams.ts";
import { direct, type Place, type Subject, type SubjectName, startSubject } from "./subjects.ts";
import { renderReport, renderUnavailable } from "./table.ts";
import type { UpstreamStats } from "./upstream.ts";

const ROOT = join(import.meta.dirname, "..", "..");
/** How long a started subject is left alone before its idle memory is read. */
const SETTLE_MS = 6_000;

function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
  else process.stderr.write(`${text}\n`);
}

async function startUpstream(maxFiles: number | undefined): Promise<number> {
  const limit = maxFiles === undefined ? {} : { maxFiles };
  return announcedPort(spawnChild(process.execPath, [join(import.meta.dirname, "upstream.ts")], limit));
}

async function upstreamStats(port: number): Promise<UpstreamStats> {
  const response = await fetch(`http://127.0.0.1:${port}/bench/stats`);
  return (await response.json()) as UpstreamStats;
}

interface Started {
  subjects: Subject[];
  footprints: Map<SubjectName, Footprint>;
  unavailable: [SubjectName, string][];
}

/**
 * Starts every subject that can be. Each is started `footprints` times for start-up and idle memory as users have them,
 * and once more to stay.
 */
async function startAll(
  names: readonly SubjectName[],
  place: Place,
  footprints: number,
  steadyHeap: boolean,
): Promise<Started> {
  const started: Started = { subjects: [], footprints: new Map(), unavailable: [] };
  for (const name of names) {
    progress(`starting ${name}`);
    try {
      const startupMs: number[] = [];
      const idleBytes: number[] = [];
      for (let start = 0; start < footprints; start++) {
        const subject = await startSubject(name, place, false);
        startupMs.push(subject.startupMs);
        await delay(SETTLE_MS);
        idleBytes.push(subject.memory().rssBytes);
        await subject.stop();
      }
      const subject = await startSubject(name, place, steadyHeap);
      subject.resetPeak();
      started.subjects.push(subject);
      started.footprints.set(name, {
        idleBytes: median(idleBytes),
        peakBytes: 0,
        startupMs: median(startupMs),
      });
    } catch (error) {
      started.unavailable.push([name, error instanceof Error ? error.message : String(error)]);
    }
  }
  return started;
}

async function bench(options: BenchOptions, place: Place): Promise<Report> {
  const generator = startGenerator();
  const { subjects, footprints, unavailable } = await startAll(
    options.subjects,
    place,
    Math.min(options.rounds, 3),
    true,
  );
  const result = await runGrid({
    cells: cells(options.sizes),
    subjects: [direct(place.upstreamPort), ...subjects],
    generator,
    dialect: options.dialect,
    seconds: options.seconds,
    rounds: options.rounds,
    upstreamStats: () => upstreamStats(place.upstreamPort),
    progress,
  });
  for (const subject of subjects) {
    const footprint = footprints.get(subject.name as SubjectName);
    if (footprint !== undefined) footprint.peakBytes = subject.memory().peakBytes;
  }
  return buildReport(result, options.sizes, footprints, unavailable);
}

async function replay(file: string, options: BenchOptions, place: Place): Promise<string> {
  const generator = startGenerator();
  const turns = readSession(file).length;
  const { subjects, unavailable } = await startAll(options.subjects, place, 0, true);
  progress(`replaying ${turns} turns through ${subjects.map((subject) => subject.name).join(", ")}`);
  const results = await replaySession(file, turns, subjects, generator, place.dialect);
  return options.json ? json({ results, unavailable }) : renderReplay(results) + reasonsOf(unavailable);
}

async function streams(count: number, options: BenchOptions, place: Place): Promise<string> {
  const generator = startGenerator();
  const results: StreamsResult[] = [];
  const unavailable: [SubjectName, string][] = [];
  for (const name of options.subjects) {
    const started = await startAll([name], place, 0, false);
    unavailable.push(...started.unavailable);
    for (const subject of started.subjects) {
      progress(`holding ${count} streams through ${name}`);
      results.push(await holdStreams(count, subject, generator, place.dialect));
      await subject.stop();
    }
  }
  return options.json ? json({ results, unavailable }) : renderStreams(results) + reasonsOf(unavailable);
}

async function hits(options: BenchOptions, place: Place): Promise<string> {
  const generator = startGenerator();
  const names = options.subjects.filter((name) => name === "cache" || name === "default" || name === "floor");
  const { subjects, unavailable } = await startAll(names, place, 0, true);
  const results = await measureHits({ ...options, subjects, generator, progress });
  return options.json ? json({ results, unavailable }) : renderHits(results) + reasonsOf(unavailable);
}

function reasonsOf(unavailable: readonly [SubjectName, string][]): string {
  return unavailable.map((missing) => `\n${renderUnavailable(missing)}\n`).join("");
}

/** NaN (not measured) becomes null. */
function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

async function main(): Promise<number> {
  let options: BenchOptions | "help";
  try {
    options = parseOptions(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n${USAGE}`);
    return 64;
  }
  if (options === "help") {
    process.stdout.write(USAGE);
    return 0;
  }
  endChildrenWithUs();
  const scratch = mkdtempSync(join(tmpdir(), "tokenman-bench-"));
  process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));
  try {
    const maxFiles = options.streams === undefined ? undefined : 65_536;
    const upstreamPort = await startUpstream(maxFiles);
    // A recorded session is of the Anthropic dialect, with thinking and its signatures.
    const dialect = options.session === undefined ? options.dialect : "anthropic";
    const limit = maxFiles === undefined ? {} : { maxFiles };
    const place: Place = { root: ROOT, scratch, upstreamPort, dialect, ...limit };
    if (options.session !== undefined) {
      process.stdout.write(`\n${await replay(options.session, options, place)}`);
    } else if (options.hits) {
      process.stdout.write(`\n${await hits(options, place)}`);
    } else if (options.streams !== undefined) {
      process.stdout.write(`\n${await streams(options.streams, options, place)}`);
    } else {
      const report = await bench(options, place);
      process.stdout.write(options.json ? json(report) : `\n${renderReport(report)}`);
      if (options.check && report.verdicts.some((verdict) => !verdict.met)) return 1;
    }
    return 0;
  } finally {
    await stopAll();
  }
}

process.exitCode = await main();

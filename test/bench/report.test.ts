import assert from "node:assert/strict";
import { test } from "node:test";
import { CONCURRENT, cellName, EVENTS_CELL, type GridResult, type Sample } from "../../scripts/bench/grid.ts";
import { buildReport } from "../../scripts/bench/report.ts";
import type { Subject, SubjectName } from "../../scripts/bench/subjects.ts";
import { renderReport } from "../../scripts/bench/table.ts";

function sample(changes: Partial<Sample>): Sample {
  return {
    requestsPerSecond: 1_000,
    p50Us: 100,
    p99Us: 200,
    firstByteP50Us: 90,
    cpuUs: 50,
    mainCpuUs: 50,
    loopUs: 60,
    completed: 10,
    failed: 0,
    reasons: [],
    ...changes,
  };
}

const SIZE = 2_048;

/** Two rounds, the second on a machine three times as slow; the kernel costs 1.2 times the floor in both. */
function grid(kernelCpu: number): GridResult {
  const rounds = (changes: Partial<Sample>): Sample[] => [
    sample(changes),
    sample({
      ...changes,
      cpuUs: (changes.cpuUs ?? 50) * 3,
      loopUs: (changes.loopUs ?? 60) * 3,
      p50Us: (changes.p50Us ?? 100) * 3,
    }),
  ];
  const cell = new Map<Subject["name"], Sample[]>([
    ["direct", rounds({ p50Us: 40 })],
    ["floor", rounds({})],
    ["kernel", rounds({ cpuUs: kernelCpu, loopUs: 66, p50Us: 140 })],
    ["portkey", rounds({ requestsPerSecond: 100, failed: 1, reasons: ["1× status 500: no"] })],
  ]);
  return new Map([
    [cellName(SIZE, false, 1), cell],
    [cellName(SIZE, false, CONCURRENT), cell],
    [EVENTS_CELL, cell],
  ]);
}

const FOOTPRINTS = new Map<SubjectName, { idleBytes: number; peakBytes: number; startupMs: number }>([
  ["floor", { idleBytes: 90e6, peakBytes: 200e6, startupMs: 100 }],
  ["kernel", { idleBytes: 130e6, peakBytes: 200e6, startupMs: 300 }],
]);

test("ratios are the rounds' own, added latency is over the direct upstream", () => {
  const { rows, processes } = buildReport(grid(60), [SIZE], FOOTPRINTS, []);
  const kernel = rows.find((row) => row.subject === "kernel");
  assert.equal(kernel?.cpuRatio, 1.2);
  assert.equal(kernel?.loopRatio, 1.1);
  assert.equal(kernel?.addedP50Us, (100 + 300) / 2);
  assert.equal(kernel?.requestsRatio, 1);
  assert.equal(processes.find((row) => row.subject === "kernel")?.eventCpuRatio, 1.2);
});

test("each target is met or missed by name", () => {
  const met = (kernelCpu: number) =>
    Object.fromEntries(
      buildReport(grid(kernelCpu), [SIZE], FOOTPRINTS, []).verdicts.map((verdict) => [
        verdict.what,
        verdict.met,
      ]),
    );
  assert.deepEqual(met(60), {
    "kernel, 2 KB buffered: CPU": true,
    "kernel, 2 KB buffered: added p50": true,
    "kernel, 2 KB buffered: requests/s over Portkey's": true,
    "kernel: CPU per streamed event": true,
    "kernel: RSS idle": false,
    "kernel: start-up": true,
  });
  assert.equal(met(65)["kernel, 2 KB buffered: CPU"], false);
});

test("the printed report names failures with their reasons and what could not be had", () => {
  const report = buildReport(grid(60), [SIZE], FOOTPRINTS, [["default", "no entry"]]);
  const text = renderReport(report);
  assert.match(text, /portkey failed 4: 1× status 500: no/);
  assert.match(text, /^default: not startable: no entry$/m);
  const lines = text.split("\n").filter((line) => line.startsWith("| 2 KB"));
  assert.equal(lines.length, 4);
  assert.equal(new Set(lines.map((line) => line.length)).size, 1);
});

test("a subject that did not finish a cell has no number there, and no verdict", () => {
  const broken = grid(Number.NaN);
  const { rows, verdicts } = buildReport(broken, [SIZE], FOOTPRINTS, []);
  assert.ok(Number.isNaN(rows.find((row) => row.subject === "kernel")?.cpuRatio));
  assert.ok(!verdicts.some((verdict) => verdict.what.includes("CPU")));
});

test("what a part adds is told in floors, over the part before it", () => {
  const rounds = (cpuUs: number): Sample[] => [sample({ cpuUs }), sample({ cpuUs: cpuUs * 3 })];
  const cell = new Map<Subject["name"], Sample[]>([
    ["floor", rounds(50)],
    ["kernel", rounds(60)],
    ["ledger", rounds(70)],
    ["resilience", rounds(76)],
  ]);
  const result: GridResult = new Map([
    [cellName(SIZE, false, 1), cell],
    [cellName(SIZE, false, CONCURRENT), cell],
  ]);
  const { verdicts } = buildReport(result, [SIZE], new Map(), []);
  const added = verdicts.filter(({ what }) => what.includes(" adds, "));
  assert.deepEqual(added, [
    { what: "ledger adds, 2 KB buffered: CPU", target: "≤ 0.25×", found: "0.20×", met: true },
    { what: "resilience adds, 2 KB buffered: CPU", target: "≤ 0.10×", found: "0.12×", met: false },
  ]);
});

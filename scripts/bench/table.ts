/** Plain Markdown tables, padded so that they read well in a terminal too. */
import type { ProcessRow, Report, Row } from "./report.ts";
import type { SubjectName } from "./subjects.ts";

/** The first column is set to the left, the others to the right. */
export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  leftColumns = 1,
): string {
  const widths = head.map((name, column) =>
    Math.max(name.length, 3, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  const line = (cells: readonly string[]): string =>
    `| ${widths.map((width, i) => (i < leftColumns ? (cells[i] ?? "").padEnd(width) : (cells[i] ?? "").padStart(width))).join(" | ")} |`;
  const rule = `|${widths.map((width, i) => (i < leftColumns ? `${"-".repeat(width + 2)}` : `${"-".repeat(width + 1)}:`)).join("|")}|`;
  return [line(head), rule, ...rows.map(line)].join("\n");
}

const NONE = "–";

function number(value: number, digits: number): string {
  return Number.isNaN(value)
    ? NONE
    : value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function ratio(value: number): string {
  return Number.isNaN(value) ? NONE : `${value.toFixed(2)}×`;
}

function ms(microseconds: number): string {
  return number(microseconds / 1_000, 2);
}

export function megabytes(bytes: number): string {
  return number(bytes / 1e6, 0);
}

function gridRow(row: Row): string[] {
  const proxy = row.subject !== "direct";
  const own = (text: string): string => (proxy ? text : NONE);
  return [
    `${Math.round(row.bodyBytes / 1_024)} KB`,
    row.streamed ? "streamed" : "buffered",
    row.subject,
    number(row.requestsPerSecond, 0),
    ratio(row.requestsRatio),
    own(ms(row.addedP50Us)),
    own(ms(row.addedP99Us)),
    own(ms(row.addedFirstByteUs)),
    own(number(row.cpuUs, 0)),
    own(ratio(row.cpuRatio)),
    own(number(row.loopUs, 0)),
    own(ratio(row.loopRatio)),
    String(row.failed),
  ];
}

function processRow(row: ProcessRow): string[] {
  return [
    row.subject,
    number(row.eventCpuUs, 1),
    ratio(row.eventCpuRatio),
    megabytes(row.idleBytes),
    megabytes(row.peakBytes),
    number(row.startupMs, 0),
  ];
}

/** One line for a subject that is missing from the tables. */
export function renderUnavailable([subject, reason]: readonly [SubjectName, string]): string {
  return subject === "portkey" ? `portkey: not available: ${reason}` : `${subject}: not startable: ${reason}`;
}

/** The whole report as text. */
export function renderReport(report: Report): string {
  const parts = [
    table(
      [
        "body",
        "reply",
        "subject",
        "req/s c32",
        "×floor",
        "added p50 ms",
        "added p99 ms",
        "added TTFB ms",
        "CPU µs/req",
        "×floor",
        "loop µs/req",
        "×floor",
        "failed",
      ],
      report.rows.map(gridRow),
      3,
    ),
    table(
      ["subject", "CPU µs/event", "×floor", "RSS idle MB", "RSS peak MB", "start-up ms"],
      report.processes.map(processRow),
    ),
    "Medians over the rounds; a ratio is the median of the rounds' own ratios. Added latency and TTFB are over the upstream\n" +
      "without a proxy, at concurrency 1, as is loop time (busy time of the event loop); requests/s and CPU at concurrency 32.",
  ];
  parts.push(...report.unavailable.map(renderUnavailable));
  for (const row of report.rows)
    if (row.failed > 0) parts.push(`${row.subject} failed ${row.failed}: ${row.reasons.join("; ")}`);
  if (report.verdicts.length > 0)
    parts.push(
      table(
        ["target", "wanted", "found", "met"],
        report.verdicts.map(({ what, target, found, met }) => [what, target, found, met ? "yes" : "NO"]),
      ),
    );
  return `${parts.join("\n\n")}\n`;
}

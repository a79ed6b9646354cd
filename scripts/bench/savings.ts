/**
 * `make bench-savings SESSION=FILE.jsonl`: recorded agent sessions through TokenMan to the embedded provider, which bills by
 * the vendors' rules for prompt caches: what each plugin saves, alone and together, against no proxy and against naive
 * compression. The same session always gives the same numbers.
 * Run: node scripts/bench/savings.ts [--check] [--dialect NAME] [--rows NAME,NAME] [--json] SESSION.jsonl …
 */
import { spawn } from "node:child_process";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import { formatUsd } from "@tokenman/plugin-sdk";
import { bytesPerToken, type ReplayDialect } from "./recorded-calls.ts";
import { measure, type Row, type RowResult, rowsOf } from "./savings-rows.ts";
import { readSession } from "./session.ts";
import { table } from "./table.ts";

const DIALECTS: readonly ReplayDialect[] = ["anthropic-messages", "openai-chat", "openai-responses"];
/** Rows are measured side by side, in processes of their own: a row stops the clocks of its process. */
const SIDE_BY_SIDE = 2;

interface Job {
  readonly file: string;
  readonly row: Row;
  readonly bytesPerToken: number;
  readonly checks: boolean;
}

interface Measured {
  readonly row: Row;
  readonly result: RowResult;
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      job: { type: "boolean", default: false },
      check: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      dialect: { type: "string" },
      rows: { type: "string" },
    },
  });
  if (values.job) {
    work();
    return;
  }
  if (positionals.length === 0)
    throw new Error(
      "usage: savings.ts [--check] [--dialect NAME] [--rows NAME,NAME] [--json] SESSION.jsonl …",
    );
  const dialects = DIALECTS.filter((each) => values.dialect === undefined || each === values.dialect);
  if (dialects.length === 0) throw new Error(`--dialect is one of ${DIALECTS.join(", ")}`);
  const wanted = values.rows?.split(",").map((name) => name.trim());
  for (const file of positionals) {
    const perToken = bytesPerToken(readSession(file));
    const jobs = dialects.flatMap((dialect) =>
      rowsOf(dialect)
        .filter(({ name }) => wanted?.includes(name) ?? true)
        .map((row): Job => ({ file, row, bytesPerToken: perToken, checks: values.check })),
    );
    const measured = await inOrder(jobs);
    if (values.json)
      process.stdout.write(`${JSON.stringify({ session: file, rows: measured }, undefined, 2)}\n`);
    else {
      process.stdout.write(`${basename(file)}: ${perToken.toFixed(2)} bytes a token\n\n`);
      for (const dialect of dialects)
        process.stdout.write(
          `${render(
            dialect,
            measured.filter(({ row }) => row.dialect === dialect),
          )}\n\n`,
        );
    }
  }
}

async function inOrder(jobs: readonly Job[]): Promise<Measured[]> {
  const results: Measured[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    using measurer = new Measurer();
    for (let index = next++; index < jobs.length; index = next++) {
      const job = jobs[index]!;
      results[index] = { row: job.row, result: await measurer.measure(job) };
    }
  };
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, worker));
  return results;
}

/** A process that measures one row after another. */
class Measurer {
  readonly #child = spawn(process.execPath, [import.meta.filename, "--job"], {
    stdio: ["ignore", "ignore", "pipe", "ipc"],
  });
  #failed = "";

  constructor() {
    this.#child.stderr!.on("data", (chunk: Buffer) => {
      this.#failed = (this.#failed + chunk.toString("utf8")).slice(-2_000);
    });
  }
  /** Rejects where it fails, with what the process said. */
  measure(job: Job): Promise<RowResult> {
    const child = this.#child;
    return new Promise((resolve, reject) => {
      const ended = (): void =>
        reject(new Error(`${job.row.dialect}, ${job.row.name}: ${this.#failed.trim()}`));
      child.once("error", reject);
      child.once("close", ended);
      child.once("message", (result) => {
        child.removeListener("error", reject).removeListener("close", ended);
        resolve(result as RowResult);
      });
      child.send(job);
    });
  }
  [Symbol.dispose](): void {
    this.#child.kill();
  }
}

/** Each job in turn, as it is told; a failure ends the process. */
function work(): void {
  const sessions = new Map<string, ReturnType<typeof readSession>>();
  process.on("message", async ({ file, row, bytesPerToken: perToken, checks }: Job) => {
    const turns = sessions.get(file) ?? readSession(file);
    sessions.set(file, turns);
    process.send!(await measure(turns, row, { bytesPerToken: perToken, checks }));
  });
}

const HEAD = [
  "client",
  "",
  "input",
  "read",
  "written",
  "hit rate",
  "cost",
  "of direct",
  "of direct, hints",
  "saved by plugin",
];

function render(dialect: ReplayDialect, measured: readonly Measured[]): string {
  const direct = (hints: boolean): number | undefined =>
    measured.find(({ row }) => row.way === "direct" && row.hints === hints)?.result.nanoUsd;
  const isAnthropic = dialect === "anthropic-messages";
  const rows = measured.map(({ row, result }) => [
    isAnthropic ? (row.hints ? "own hints" : "no hints") : "",
    row.name,
    millions(result.input + result.read + result.written),
    millions(result.read),
    millions(result.written),
    percent(result.read, result.input + result.read + result.written),
    formatUsd(result.nanoUsd),
    percent(result.nanoUsd, direct(false)),
    isAnthropic ? percent(result.nanoUsd, direct(true)) : "",
    pluginsOf(result),
  ]);
  const invalid = measured.reduce((sum, { result }) => sum + (result.invalid ?? 0), 0);
  const isChecked = measured.some(({ result }) => result.invalid !== undefined);
  return [
    dialect,
    table(HEAD, rows),
    ...(isChecked ? [`${invalid} requests that the vendor would refuse`] : []),
  ].join("\n");
}

function pluginsOf({ savings, ownCalls, ownNanoUsd }: RowResult): string {
  const parts = Object.entries(savings).map(
    ([plugin, { tokens, nanoUsd }]) =>
      `${plugin} ${formatUsd(nanoUsd)}${tokens === 0 ? "" : ` (${millions(tokens)})`}`,
  );
  if (ownCalls > 0) parts.push(`${ownCalls} own calls ${formatUsd(ownNanoUsd)}`);
  return parts.join(", ");
}

function millions(tokens: number): string {
  return Math.abs(tokens) < 1e5 ? `${(tokens / 1e3).toFixed(1)}k` : `${(tokens / 1e6).toFixed(2)}M`;
}

function percent(part: number, whole: number | undefined): string {
  return whole === undefined || whole === 0 ? "" : `${((part / whole) * 100).toFixed(1)} %`;
}

if (import.meta.main) await main();

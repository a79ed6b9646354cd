/** The bench's command line. */
import { parseArgs } from "node:util";
import type { BenchDialect } from "./replies.ts";
import { SUBJECTS, type SubjectName } from "./subjects.ts";

/** Measured where nobody names others. */
const USUAL: readonly SubjectName[] = ["floor", "kernel", "default", "portkey"];
/** What each part of the features adds to the one before. */
export const COLUMNS: readonly SubjectName[] = ["floor", "kernel", "ledger", "resilience", "saving"];

export interface BenchOptions {
  subjects: SubjectName[];
  /** Body sizes in bytes. */
  sizes: number[];
  /** How long one cell is measured. */
  seconds: number;
  rounds: number;
  dialect: BenchDialect;
  json: boolean;
  /** Exit with 1 where a target is missed. */
  check: boolean;
  session: string | undefined;
  /** Number of concurrent slow streams; undefined: that part is not run. */
  streams: number | undefined;
  /** Measure what is answered from the response cache instead of the grid. */
  hits: boolean;
}

export const USAGE = `Usage: node scripts/bench/main.ts [options]

  --quick            one round of short cells: a first impression in under a minute
  --subjects LIST    of ${SUBJECTS.join(",")} (default: ${USUAL.join(",")})
  --columns          what each part adds: --subjects ${COLUMNS.join(",")}
  --sizes LIST       request bodies, e.g. 2k,60k,520k (default; k = 1,024 bytes)
  --seconds N        how long one cell is measured (default 0.8, quick 0.4)
  --rounds N         how often every cell is measured, subjects interleaved (default 5, quick 1)
  --dialect NAME     openai (default) or anthropic
  --session FILE     replay a recorded agent session instead of the grid
  --streams N        hold N slow streams at once instead of the grid
  --hits             requests that the response cache answers instead of the grid
  --check            exit with 1 where a target of the design is missed
  --json             print the numbers as JSON instead of tables
`;

/** @throws Error naming the option and what was expected */
export function parseOptions(argv: readonly string[]): BenchOptions | "help" {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      quick: { type: "boolean", default: false },
      subjects: { type: "string", default: USUAL.join(",") },
      columns: { type: "boolean", default: false },
      sizes: { type: "string", default: "2k,60k,520k" },
      seconds: { type: "string" },
      rounds: { type: "string" },
      dialect: { type: "string", default: "openai" },
      session: { type: "string" },
      streams: { type: "string" },
      hits: { type: "boolean", default: false },
      check: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
      help: { type: "boolean", default: false, short: "h" },
    },
  });
  if (values.help) return "help";
  const { dialect, quick } = values;
  if (dialect !== "openai" && dialect !== "anthropic")
    throw new Error(`--dialect: expected openai or anthropic, found ${dialect}`);
  const named = values.columns ? COLUMNS : values.subjects.split(",");
  const subjects = named.map((name) => {
    const known = SUBJECTS.find((subject) => subject === name.trim());
    if (known === undefined)
      throw new Error(`--subjects: expected some of ${SUBJECTS.join(",")}, found ${name}`);
    return known;
  });
  return {
    // The floor is measured first, always: the other numbers are ratios to it.
    subjects: SUBJECTS.filter((name) => name === "floor" || subjects.includes(name)),
    sizes: values.sizes.split(",").map(parseSize),
    seconds: positive("--seconds", values.seconds ?? (quick ? "0.4" : "0.8"), 60),
    rounds: positive("--rounds", values.rounds ?? (quick ? "1" : "5"), 50),
    dialect,
    json: values.json,
    check: values.check,
    session: values.session,
    streams: values.streams === undefined ? undefined : positive("--streams", values.streams, 10_000),
    hits: values.hits,
  };
}

function positive(option: string, text: string, most: number): number {
  const value = Number(text);
  if (!(value > 0 && value <= most))
    throw new Error(`${option}: expected a number up to ${most}, found ${text}`);
  return value;
}

function parseSize(text: string): number {
  const match = /^(\d+)(k?)$/i.exec(text.trim());
  const bytes = match === null ? Number.NaN : Number(match[1]) * (match[2] === "" ? 1 : 1_024);
  if (!(bytes >= 2_048 && bytes <= 32 * 1_024 * 1_024))
    throw new Error(`--sizes: expected sizes from 2k to 32768k, found ${text}`);
  return bytes;
}

import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Command, type CommandContext, parseDuration, TokenmanError } from "@tokenman/plugin-sdk";
import { databaseFile } from "./file.ts";

const DAY_MS = 86_400_000;
const FORMATS = ["jsonl", "csv", "sqlite"] as const;
type Format = (typeof FORMATS)[number];

/** The commands read and write the database themselves, whether TokenMan runs or not. */
export const ledgerCommands: readonly Command[] = [
  {
    usage: "ledger verify",
    description: "Check the ledger: every page of its file, and its sums against its rows",
    examples: ["tokenman ledger verify"],
    run: verifyLedger,
  },
  {
    usage: "ledger export",
    description: "Write requests out as JSON lines or CSV, or back the whole database up",
    options: [
      { flag: "--format <format>", description: "jsonl, csv, or sqlite (a backup of all)", default: "jsonl" },
      { flag: "--out <file>", description: "Where to; jsonl and csv go to the standard output without it" },
      {
        flag: "--since <time>",
        description: "From this time on: a date, or a duration before now such as 7d",
      },
      { flag: "--until <time>", description: "Up to this time" },
      { flag: "--bodies", description: "With the bodies that are stored (jsonl)" },
    ],
    examples: [
      "tokenman ledger export --since 7d > week.jsonl",
      "tokenman ledger export --format csv --since 2026-11-01 --until 2026-12-01 --out november.csv",
      "tokenman ledger export --format sqlite --out backup.db",
    ],
    run: exportLedger,
  },
  {
    usage: "ledger prune",
    description: "Remove old requests now",
    options: [{ flag: "--older-than <duration>", description: "Such as 30d" }],
    examples: ["tokenman ledger prune --older-than 30d"],
    run: pruneLedger,
  },
];

async function verifyLedger({ host, print }: CommandContext): Promise<void> {
  const file = existing(host.dataDir);
  const { openForReading } = await import("./open.ts");
  const { verify } = await import("./verify.ts");
  let problems: string[];
  try {
    const db = openForReading(file);
    try {
      problems = verify(db);
    } finally {
      db.close();
    }
  } catch (cause) {
    throw new TokenmanError("TM_LEDGER_DAMAGED", `${file}: ${said(cause)}`, { cause });
  }
  if (problems.length > 0)
    throw new TokenmanError("TM_LEDGER_DAMAGED", `${file}:\n  ${problems.join("\n  ")}`);
  print(`${file} is sound`);
}

async function exportLedger({ host, options, print }: CommandContext): Promise<void> {
  const file = existing(host.dataDir);
  const format = formatOf(options["format"]);
  const out = textOf(options["out"]);
  const range = {
    from: timeOf("--since", options["since"]) ?? 0,
    to: timeOf("--until", options["until"]) ?? 8_640_000_000_000,
  };
  const { openForReading } = await import("./open.ts");
  const db = openForReading(file);
  try {
    if (format === "sqlite") {
      if (out === undefined) throw new TokenmanError("TM_USAGE", "--format sqlite needs --out <file>");
      if (existsSync(out)) throw new TokenmanError("TM_USAGE", `${out} exists already`);
      const { backup } = await import("node:sqlite");
      await backup(db, out);
      return;
    }
    const { csv, jsonLines } = await import("./export.ts");
    const lines = format === "csv" ? csv(db, range) : jsonLines(db, range, options["bodies"] === true);
    if (out === undefined) for (const line of lines) print(line);
    else await writeLines(out, lines);
  } finally {
    db.close();
  }
}

async function writeLines(out: string, lines: Iterable<string>): Promise<void> {
  const { open } = await import("node:fs/promises");
  const handle = await open(out, "w", 0o600).catch((cause: unknown) => {
    throw new TokenmanError("TM_DATA_DIR", `${out} cannot be written: ${said(cause)}`, { cause });
  });
  try {
    let text = "";
    for (const line of lines) {
      text += `${line}\n`;
      if (text.length < 1 << 20) continue;
      await handle.write(text);
      text = "";
    }
    await handle.write(text);
  } finally {
    await handle.close();
  }
}

async function pruneLedger({ host, options, print }: CommandContext): Promise<void> {
  const file = existing(host.dataDir);
  const age = textOf(options["olderThan"] ?? options["older-than"]);
  if (age === undefined) throw new TokenmanError("TM_USAGE", "say how old: --older-than 30d");
  let ms: number;
  try {
    ms = parseDuration(age, "d");
  } catch (cause) {
    throw new TokenmanError("TM_USAGE", `--older-than: ${said(cause)}`, { cause });
  }
  if (ms < 60_000) throw new TokenmanError("TM_USAGE", "--older-than is at least a minute");
  const { openAsItIs } = await import("./open.ts");
  const { pruneSome, shrinkSome } = await import("./prune.ts");
  const db = openAsItIs({ file, busyMs: 10_000, synchronous: "normal" });
  try {
    const count = (): number => Number(db.prepare("SELECT count(*) AS n FROM request").get()?.["n"]);
    const before = count();
    while (pruneSome(db, { days: ms / DAY_MS, bodyDays: 0 }, Date.now()));
    shrinkSome(db);
    print(`${before - count()} requests removed`);
  } finally {
    db.close();
  }
}

function existing(dataDir: string): string {
  const file = join(dataDir, databaseFile);
  if (!existsSync(file)) throw new TokenmanError("TM_DATA_DIR", `there is no ledger at ${file} yet`);
  return file;
}

function formatOf(value: unknown): Format {
  const format = FORMATS.find((each) => each === value);
  if (format === undefined) throw new TokenmanError("TM_USAGE", `--format is one of ${FORMATS.join(", ")}`);
  return format;
}

/** Milliseconds since the epoch of a date or of a duration before now. */
function timeOf(flag: string, value: unknown): number | undefined {
  const text = textOf(value);
  if (text === undefined) return undefined;
  try {
    return Date.now() - parseDuration(text, "d");
  } catch {
    const at = Date.parse(text);
    if (Number.isNaN(at))
      throw new TokenmanError("TM_USAGE", `${flag} is a date (2026-11-01) or a duration (7d), not "${text}"`);
    return at;
  }
}

function textOf(value: unknown): string | undefined {
  return value === undefined || value === "" ? undefined : String(value);
}

function said(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

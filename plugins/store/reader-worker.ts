import type { DatabaseSync, SQLInputValue } from "node:sqlite";
import { parentPort, workerData } from "node:worker_threads";
import type { Ledger } from "@tokenman/plugin-sdk";
import { openForReading } from "./open.ts";
import { page } from "./page.ts";
import { record } from "./record.ts";
import { savings } from "./savings.ts";
import { between } from "./stretches.ts";
import { groups, history, totals } from "./sums.ts";
import { wireError } from "./wire-error.ts";

const MAX_ROWS = 100_000;

/** What a reader answers, by the names of {@link Ledger}'s methods. */
const QUESTIONS = {
  page,
  request: (db: DatabaseSync, id: string) => record(db, id),
  totals,
  history,
  between,
  groups,
  savings,
  read(db: DatabaseSync, sql: string, parameters: readonly SQLInputValue[] = []): unknown[] {
    const rows: unknown[] = [];
    for (const row of db.prepare(sql).iterate(...parameters)) {
      // Plain objects: those of the driver have no prototype, which does not survive the way to another thread anyway.
      if (rows.push({ ...row }) >= MAX_ROWS) break;
    }
    return rows;
  },
} satisfies { [K in Question]: (db: DatabaseSync, ...question: never[]) => unknown };
export type Question = keyof Pick<
  Ledger,
  "page" | "request" | "totals" | "history" | "between" | "groups" | "savings" | "read"
>;

export interface ToReader {
  readonly call: number;
  readonly question: Question;
  readonly parameters: readonly unknown[];
}

const { file } = workerData as { readonly file: string };
let db: DatabaseSync | undefined;

parentPort!.on("message", ({ call, question, parameters }: ToReader) => {
  try {
    db ??= openForReading(file);
    const ask = QUESTIONS[question] as (db: DatabaseSync, ...parameters: readonly unknown[]) => unknown;
    parentPort!.postMessage({ call, value: ask(db, ...parameters) });
  } catch (cause) {
    parentPort!.postMessage({ call, error: wireError(cause) });
    // A file that was replaced, or set aside, is opened anew.
    if (!(cause instanceof Error && "code" in cause && cause.code === "TM_LEDGER_QUERY")) {
      db?.close();
      db = undefined;
    }
  }
});

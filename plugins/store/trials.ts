import { createHash } from "node:crypto";
import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { LedgerTrial } from "@tokenman/plugin-sdk";
import { DAY_MS } from "./rollup.ts";

/** A session that goes on is summed up for so long; then only its day's sums are left. */
const SESSION_DAYS = 2;

/** The comparison with held-out sessions. Within a transaction that the caller holds. */
export class Trials {
  readonly #find: StatementSync;
  readonly #put: StatementSync;
  readonly #add: StatementSync;

  constructor(db: DatabaseSync) {
    this.#find = db.prepare(
      "SELECT original, paid FROM trial_session WHERE day = ? AND session = ? AND held = ?",
    );
    this.#put = db.prepare(
      "INSERT OR REPLACE INTO trial_session (day, session, held, original, paid) VALUES (?, ?, ?, ?, ?)",
    );
    const sums = ["sessions", "requests", "original", "paid", "original_squares", "paid_squares", "products"];
    this.#add = db.prepare(
      `INSERT INTO trial_daily (day, held, ${sums.join(", ")}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (day, held) DO UPDATE SET ${sums.map((name) => `${name} = ${name} + excluded.${name}`).join(", ")}`,
    );
  }

  /** A session's sums grow, and the sums over all sessions by the difference of their squares. */
  add({ at, session, held, requests, originalTokens, paidTokens }: LedgerTrial): void {
    const day = Math.floor(at / DAY_MS);
    const arm = held ? 1 : 0;
    const key = createHash("sha256").update(session).digest().subarray(0, 12);
    const before = this.#find.get(day, key, arm) as
      | { readonly original: number; readonly paid: number }
      | undefined;
    const { original, paid } = before ?? { original: 0, paid: 0 };
    const [nowOriginal, nowPaid] = [original + originalTokens, paid + paidTokens];
    this.#put.run(day, key, arm, nowOriginal, nowPaid);
    this.#add.run(
      day,
      arm,
      before === undefined ? 1 : 0,
      requests,
      originalTokens,
      paidTokens,
      nowOriginal ** 2 - original ** 2,
      nowPaid ** 2 - paid ** 2,
      nowOriginal * nowPaid - original * paid,
    );
  }
}

export function pruneTrialSessions(db: DatabaseSync, now: number): void {
  db.prepare("DELETE FROM trial_session WHERE day < ?").run(Math.floor(now / DAY_MS) - SESSION_DAYS);
}

import { hostname } from "node:os";
import type { DatabaseSync } from "node:sqlite";
import { INTERRUPTED, OPEN } from "./codes.ts";
import { FIGURE } from "./figures.ts";
import type { Rollup } from "./rollup.ts";
import { msOf } from "./time-key.ts";

/** A process of this machine that is gone is dead at once; another machine's when it was silent for this long. */
const SILENT_MS = 60_000;

/** For this long it is silent under our eyes, too: while the machine slept, or its clock jumped, nobody could be heard. */
const UNHEARD_MS = 30_000;

/** Rows that become interrupted in one transaction. */
const BATCH = 1_000;

/**
 * The processes that write. A restart that hands over has two of them alive; rows that a dead one left open are
 * interrupted, their cost is not known, and what they reserved stays spent.
 */
export class Boots {
  readonly #db: DatabaseSync;
  readonly #uuid: string;
  /** Those found silent: their last sign of life then, and when that was on the monotonic clock. */
  readonly #silent = new Map<number, { readonly seenAt: number; readonly foundMs: number }>();
  readonly id: number;

  constructor(db: DatabaseSync, uuid: string) {
    this.#db = db;
    this.#uuid = uuid;
    const now = Date.now();
    db.prepare(
      `INSERT INTO boot (uuid, host, pid, started_at, seen_at) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (uuid) DO UPDATE SET seen_at = excluded.seen_at, ended_at = NULL`,
    ).run(uuid, hostname(), process.pid, now, now);
    this.id = Number(db.prepare("SELECT id FROM boot WHERE uuid = ?").get(uuid)!["id"]);
  }

  heartbeat(): void {
    this.#db.prepare("UPDATE boot SET seen_at = ?, ended_at = NULL WHERE id = ?").run(Date.now(), this.id);
  }
  ended(): void {
    const now = Date.now();
    this.#db.prepare("UPDATE boot SET seen_at = ?, ended_at = ? WHERE id = ?").run(now, now, this.id);
  }

  /** Interrupts some open rows of dead processes, and says how many; 0 when there are none left. */
  interruptDead(rollup: Rollup): number {
    const dead = this.#db
      .prepare("SELECT DISTINCT boot AS id FROM request WHERE outcome = 0")
      .all()
      .map(({ id }) => Number(id))
      .filter((id) => !this.isAlive(id));
    let interrupted = 0;
    const close = this.#db.prepare(
      "UPDATE request SET outcome = ?, unpriced = 1 WHERE id = ? AND outcome = ?",
    );
    for (const boot of dead) {
      const open = this.#db
        .prepare("SELECT id, project, model FROM request WHERE boot = ? AND outcome = 0 LIMIT ?")
        .all(boot, BATCH - interrupted);
      for (const row of open) {
        close.run(INTERRUPTED, Number(row["id"]), OPEN);
        const sums = rollup.of(msOf(Number(row["id"])), Number(row["project"]), 0, Number(row["model"] ?? 0));
        sums.add(FIGURE.requests, 1);
        sums.add(FIGURE.interrupted, 1);
        sums.add(FIGURE.unpriced, 1);
      }
      interrupted += open.length;
      if (interrupted >= BATCH) break;
    }
    return interrupted;
  }

  isAlive(id: number): boolean {
    if (id === this.id) return true;
    const boot = this.#db.prepare("SELECT uuid, host, pid, seen_at, ended_at FROM boot WHERE id = ?").get(id);
    if (boot === undefined || boot["ended_at"] !== null || boot["uuid"] === this.#uuid) return false;
    const silent = this.#isSilent(id, Number(boot["seen_at"]));
    if (boot["host"] !== hostname()) return !silent;
    // A container's processes have the same number at each start.
    if (Number(boot["pid"]) === process.pid || !exists(Number(boot["pid"]))) return false;
    // Another program may have the number by now.
    return !silent;
  }

  #isSilent(id: number, seenAt: number): boolean {
    if (Math.abs(Date.now() - seenAt) <= SILENT_MS) return false;
    const found = this.#silent.get(id);
    const now = performance.now();
    if (found?.seenAt === seenAt) return now - found.foundMs > UNHEARD_MS;
    this.#silent.set(id, { seenAt, foundMs: now });
    return false;
  }
}

function exists(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

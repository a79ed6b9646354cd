import assert from "node:assert/strict";
import { existsSync, readdirSync, utimesSync, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { describe, test } from "node:test";
import type { BudgetWindow } from "@tokenman/plugin-sdk";
import { Boots } from "../../plugins/store/boots.ts";
import { Budget } from "../../plugins/store/budget.ts";
import { journalFile } from "../../plugins/store/journal.ts";
import { openForWriting } from "../../plugins/store/open.ts";
import { removeOrphans } from "../../plugins/store/orphans.ts";
import { type Allowances, Reserver } from "../../plugins/store/reserver.ts";
import { Rollup } from "../../plugins/store/rollup.ts";
import { newFile, reservation, window } from "../support/open-ledger.ts";

/** Files of a journal as short as this are followed by new ones all the time. */
const MAX_BYTES = 1_000;

/** Mulberry32: numbers in [0, 1), the same ones for the same seed. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** The database without its thread. */
function openBudget(file = newFile()) {
  const { db } = openForWriting({ file, busyMs: 1_000, synchronous: "normal" });
  const boot = new Boots(db, "boot-1").id;
  const budget = new Budget(db, file, new Rollup(db));
  const run = <T>(work: () => T): T => {
    db.exec("BEGIN IMMEDIATE");
    const value = work();
    db.exec("COMMIT");
    budget.committed();
    return value;
  };
  /** Ends a process that was killed. */
  const bury = (id: string): void =>
    run(() => {
      for (const holder of budget.holders(undefined)) if (holder.id === id) budget.leave(holder);
    });
  return { file, db, boot, budget, run, bury, [Symbol.dispose]: () => db.close() };
}
type OpenBudget = ReturnType<typeof openBudget>;

/** What the writer does for a process; `fault` may fail a call before it is done, or lose its answer. */
function allowances(open: OpenBudget, fault: () => "refused" | "lost" | undefined = () => undefined) {
  const { budget, boot, run } = open;
  const call = async <T>(work: () => T): Promise<T> => {
    await undefined;
    const trouble = fault();
    if (trouble === "refused") throw new Error("refused");
    const value = run(work);
    if (trouble === "lost") throw new Error("no answer");
    return value;
  };
  const made: Allowances = {
    isFailing: false,
    isFlushed: false,
    beginning: () => undefined,
    rowsWritten: () => undefined,
    allow: (holder, journal, asks) => call(() => budget.allow(holder, boot, journal, asks)),
    fold: (holder, journal, spent) => call(() => budget.fold(holder, journal, spent)),
    leave: (holder) =>
      call(() => {
        for (const each of budget.holders(undefined)) if (each.id === holder) budget.leave(each);
      }),
    settleLeft: (id, spent, at) => call(() => budget.settle(id, spent, at)),
    used: (_holder, windows) => call(() => budget.used(windows)),
  };
  return made;
}

interface Known {
  readonly nanoUsd: number;
  readonly windows: readonly BudgetWindow[];
  /** It counts at least, and at most, so much. */
  least: number;
  most: number;
  isOpen: boolean;
}

describe("reservations against a model", () => {
  for (const seed of [1, 2, 3, 4, 5, 6])
    test(`what is used is what was spent and is open, and never above the limit (seed ${seed})`, {
      timeout: 60_000,
    }, async () => {
      using open = openBudget();
      const random = randomFrom(seed);
      const whole = (below: number): number => Math.floor(random() * below);
      const all = window(40_000 + whole(100_000));
      const web = window(20_000 + whole(100_000), "project:web");
      const known = new Map<string, Known>();
      const check = (said: string): void => {
        const used = open.run(() => open.budget.used([all, web]));
        for (const [index, limit] of [all, web].entries()) {
          let least = 0;
          let most = 0;
          for (const each of known.values())
            if (each.windows.some(({ scope }) => scope === limit.scope)) {
              least += each.least;
              most += each.most;
            }
          const found = used[index]!;
          assert.ok(found >= least && found <= most, `${said}: ${found} is not in ${least} to ${most}`);
          assert.ok(found <= limit.limitNanoUsd, `${said}: ${found} is above ${limit.limitNanoUsd}`);
        }
      };

      for (let life = 0; life < 12; life++) {
        const holder = `${seed}-${life}`;
        let isDead = false;
        const isTroubled = random() < 0.5;
        const fault = () => {
          if (isDead) return "refused";
          return isTroubled && random() < 0.4 ? (random() < 0.5 ? "refused" : "lost") : undefined;
        };
        const reserver = new Reserver(allowances(open, fault), open.file, holder, MAX_BYTES);
        const steps: Promise<unknown>[] = [];
        const reserve = async (): Promise<void> => {
          const windows = random() < 0.5 ? [all] : [all, web];
          const asked = reservation(random() < 0.05 ? 0 : whole(600), windows);
          const entry: Known = {
            nanoUsd: asked.nanoUsd,
            windows,
            least: 0,
            most: asked.nanoUsd,
            isOpen: true,
          };
          known.set(asked.id, entry);
          try {
            const { ok } = await reserver.reserve(asked);
            if (isDead) return;
            if (ok) entry.least = asked.nanoUsd;
            else known.delete(asked.id);
          } catch {
            if (!isDead) known.delete(asked.id);
          }
        };
        const settle = async (): Promise<void> => {
          const granted = [...known].filter(([, { isOpen, least, nanoUsd }]) => isOpen && least === nanoUsd);
          const chosen = granted[whole(granted.length)];
          if (chosen === undefined) return;
          const [id, entry] = chosen;
          entry.isOpen = false;
          const spent = whole(entry.nanoUsd + 1) >> 3;
          entry.least = spent;
          try {
            await reserver.settle(id, spent, Date.now());
            // Twice is once.
            if (random() < 0.2) await reserver.settle(id, 1_000_000, Date.now());
            if (!isDead) entry.most = spent;
          } catch {
            // One that an earlier process left open was refused or taken: nobody knows.
          }
        };
        for (let step = 0, count = 50 + whole(350); step < count; step++) {
          const kind = random();
          if (kind < 0.45) steps.push(reserve());
          else if (kind < 0.85) steps.push(settle());
          // Which has what is settled written.
          else if (kind < 0.95) await reserver.used([all, web]).catch(() => undefined);
          else await new Promise((resolve) => setImmediate(resolve));
        }
        const isTold = random() < 0.7;
        if (isTold) await Promise.all(steps);
        const isClosed = random() < 0.3;
        if (isClosed) await Promise.all([reserver.close(), ...steps]);
        isDead = true;
        open.bury(holder);
        check(`life ${life}`);
        // A process that was killed would have no files open.
        if (!isClosed) await Promise.all([reserver.close(), ...steps]);
      }
    });
});

test("what is told twice to be spent, as its answer was lost, is taken over once", () => {
  using open = openBudget();
  const { budget, boot, file } = open;
  const limit = window(1_000_000);
  const [{ granted } = { granted: 0 }] = open.run(() =>
    budget.allow("one", boot, 1, [{ window: limit, leased: 0, want: 600 }]),
  );
  assert.ok(granted >= 600);
  writeFileSync(journalFile(file, "one", 2), "");
  const { scope, period, from } = limit;
  for (let each = 0; each < 2; each++)
    open.run(() => budget.fold("one", 2, [{ scope, period, from, nanoUsd: 70 }]));
  open.bury("one");
  assert.deepEqual(
    open.run(() => budget.used([limit])),
    [70],
  );
});

describe("the end of a ledger", () => {
  test("a settlement that comes while it ends takes the place of what was reserved", async () => {
    using open = openBudget();
    const reserver = new Reserver(allowances(open), open.file, "one");
    const limit = window(1_000_000);
    const asked = reservation(600, [limit]);
    await reserver.reserve(asked);
    const left = reserver.close();
    await Promise.all([left, reserver.settle(asked.id, 70, Date.now())]);
    assert.deepEqual(
      open.run(() => open.budget.used([limit])),
      [70],
    );
  });

  test("refuses who waits for room or for a row then, and is allowed nothing more", async () => {
    using open = openBudget();
    const rows = Promise.withResolvers<void>();
    const allowed = Promise.withResolvers<void>();
    const rowsWritten = (): Promise<void> => {
      allowed.resolve();
      return rows.promise;
    };
    const made = { ...allowances(open), rowsWritten };
    const reserver = new Reserver(made, open.file, "one");
    const limit = window(1_000_000);
    const first = reserver.reserve(reservation(1, [limit]));
    await allowed.promise;
    const second = reserver.reserve(reservation(900_000, [limit]));
    const refused = [first, second].map((each) => assert.rejects(each, { code: "TM_LEDGER_UNAVAILABLE" }));
    const left = reserver.close();
    rows.resolve();
    await Promise.all([left, ...refused]);
    assert.deepEqual(
      open.run(() => open.budget.used([limit])),
      [0],
    );
    assert.deepEqual(open.budget.holders(undefined), []);
  });

  test("leaves no file where it comes while the first is made", async () => {
    using open = openBudget();
    const reserver = new Reserver(allowances(open), open.file, "one");
    const asked = reserver.reserve(reservation(1, [window(1_000)]));
    const refused = assert.rejects(asked, { code: "TM_LEDGER_UNAVAILABLE" });
    await Promise.all([reserver.close(), refused]);
    assert.equal(existsSync(journalFile(open.file, "one", 1)), false);
    assert.deepEqual(open.budget.holders(undefined), []);
  });
});

test("journals that nobody counts are removed once they were left alone for a day, and no others", () => {
  using open = openBudget();
  const { file, db, budget, boot } = open;
  const now = Date.now();
  const make = (name: string, hours: number): string => {
    writeFileSync(name, "");
    utimesSync(name, new Date(now - hours * 3_600_000), new Date(now - hours * 3_600_000));
    return basename(name);
  };
  open.run(() => budget.allow("holds", boot, 1, [{ window: window(1_000), leased: 0, want: 10 }]));
  const old = make(journalFile(file, "gone", 1), 25);
  const stay = [
    make(journalFile(file, "young", 1), 23),
    make(journalFile(file, "holds", 1), 25),
    make(`${journalFile(file, "gone", 1)}.txt`, 25),
    make(`${file}.corrupt-1`, 25),
  ];
  removeOrphans(db, file, now);
  const there = readdirSync(dirname(file));
  assert.equal(there.includes(old), false);
  for (const name of stay) assert.ok(there.includes(name), name);
  assert.ok(existsSync(file));
  // A file of another name is none of a journal's.
  make(`${journalFile(file, "holds", 1)}~`, 1);
  open.bury("holds");
  assert.deepEqual(
    open.run(() => budget.used([window(1_000)])),
    [0],
  );
});

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import type { BudgetWindow, Logger, Reservation } from "@tokenman/plugin-sdk";
import { SqliteLedger } from "../../plugins/store/sqlite-ledger.ts";
import { exchangeId } from "./ledger-rows.ts";

const folders: string[] = [];
after(() => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** Where a new database may be; its folder goes when the tests are over. */
export function newFile(): string {
  const folder = mkdtempSync(join(tmpdir(), "ledger-"));
  folders.push(folder);
  return join(folder, "ledger.db");
}

export interface OpenLedger extends AsyncDisposable {
  readonly ledger: SqliteLedger;
  readonly file: string;
  readonly logged: {
    readonly level: string;
    readonly facts: Record<string, unknown>;
    readonly message: string;
  }[];
}

/** Opens a ledger as the plugin does, and keeps what it logs. */
export async function openLedger(file = newFile(), bootId = "boot-1"): Promise<OpenLedger> {
  const logged: OpenLedger["logged"] = [];
  const log = Object.fromEntries(
    ["trace", "debug", "info", "warn", "error"].map((level) => [
      level,
      (facts: Record<string, unknown>, message = "") => void logged.push({ level, facts, message }),
    ]),
  ) as unknown as Logger;
  const settings = { file, bootId, synchronous: "normal", retention: { days: 0, bodyDays: 0 } } as const;
  const ledger = await SqliteLedger.open(settings, log);
  return { ledger, file, logged, [Symbol.asyncDispose]: () => ledger.close() };
}

/** A budget's hour that is under way. */
export function window(limitNanoUsd: number, scope = "total"): BudgetWindow {
  const from = Math.floor(Date.now() / 3_600_000) * 3_600_000;
  return { scope, period: "hourly", from, to: from + 3_600_000, limitNanoUsd };
}
export function reservation(
  nanoUsd: number,
  windows: readonly BudgetWindow[],
  id: string = exchangeId(),
): Reservation {
  return { id, exchangeId: id, at: Date.now(), nanoUsd, windows };
}

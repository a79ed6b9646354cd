import { definePlugin, Ledger, type LedgerEnd } from "@tokenman/plugin-sdk";
import type { KernelSettings } from "@tokenman/plugin-sdk/testkit";
import { startTokenman, type Tokenman } from "./kernel.ts";

/** A running TokenMan, its ledger, and a way to wait for what ends in it. */
export type Ledgered = Tokenman & {
  readonly ledger: Ledger;
  /** Rows of the exchanges that ended, the next ones that nobody took yet, once they are on disk. */
  ended(count?: number): Promise<readonly LedgerEnd[]>;
};

/** Starts TokenMan, and watches its ledger from inside. */
export async function startLedgered(settings: KernelSettings = {}): Promise<Ledgered> {
  let found: Ledger | undefined;
  const probe = definePlugin({
    name: "ledger-probe",
    version: "1.0.0",
    apiVersion: 1,
    needs: { ledger: Ledger },
    setup: ({ services }) => {
      found ??= services.ledger;
    },
  });
  const tokenman = await startTokenman({ ...settings, plugins: [...(settings.plugins ?? []), probe] });
  const ledger = found!;
  const ends: LedgerEnd[] = [];
  let wake = (): void => {};
  ledger.watch((event) => {
    if (event.kind !== "end") return;
    ends.push(event.row);
    wake();
  });
  return {
    ...tokenman,
    ledger,
    async ended(count = 1) {
      while (ends.length < count)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      await ledger.flush();
      return ends.splice(0, count);
    },
  };
}

/**
 * A TokenMan to be killed: the kernel with its own plugins and one that reserves for each request before it is sent
 * and settles afterwards, as a hard budget does. It tells its parent where it listens, and each settlement that was
 * acknowledged. The config file is its argument.
 */
import { type BudgetWindow, definePlugin, Ledger, type Logger } from "@tokenman/plugin-sdk";
import { plannedSections } from "../../cli/planned.ts";
import { firstParty } from "../../cli/registry.ts";
import { createKernel } from "../../kernel/kernel.ts";

export const RESERVED = 1_000;
export const SPENT = 400;

export type FromChild =
  | { readonly kind: "ready"; readonly proxy: string }
  | { readonly kind: "settled"; readonly id: string }
  | { readonly kind: "failed"; readonly reason: string };

/** One window for all runs, so that what each of them spent adds up. */
export const WINDOW: BudgetWindow = {
  scope: "total",
  period: "monthly",
  from: 0,
  to: 4_000_000_000_000,
  limitNanoUsd: Number.MAX_SAFE_INTEGER,
};

const tell = (message: FromChild): void => void process.send?.(message);

const reserving = definePlugin({
  name: "reserving",
  version: "1.0.0",
  apiVersion: 1,
  needs: { ledger: Ledger },
  stage: "admit",
  onError: "closed",
  setup({ services: { ledger }, pipeline }) {
    pipeline((_config, hooks) => {
      hooks.request.tap(async (exchange) => {
        const { id } = exchange;
        const { ok } = await exchange.wait(
          ledger.reserve({ id, exchangeId: id, at: Date.now(), nanoUsd: RESERVED, windows: [WINDOW] }),
        );
        return ok
          ? undefined
          : exchange.refuse({ code: "TM_LEDGER_UNAVAILABLE", message: "The limit is reached." });
      });
      hooks.lifecycle.for("settled").tap(async ({ id }) => {
        await ledger.settle(id, SPENT, Date.now());
        tell({ kind: "settled", id });
      });
    });
  },
});

const log: Logger = {
  trace() {},
  debug() {},
  info() {},
  warn() {},
  error: (facts, message) => console.error(message, facts),
};

const [, , configFile] = process.argv;
if (process.send !== undefined && configFile !== undefined) {
  // Nobody is left to kill it.
  process.on("disconnect", () => process.exit(1));
  try {
    const kernel = await createKernel({
      version: "0.0.0",
      configFile,
      env: {},
      registry: {
        names: () => [...firstParty.names(), reserving.name],
        load: async (name) => (name === reserving.name ? reserving : firstParty.load(name)),
        defaultOrder: ["store", "recorder", reserving.name],
        alwaysOn: firstParty.alwaysOn,
      },
      planned: plannedSections,
      log,
    });
    const { proxyAddress } = await kernel.start();
    tell({ kind: "ready", proxy: proxyAddress });
  } catch (cause) {
    tell({ kind: "failed", reason: cause instanceof Error ? cause.message : String(cause) });
  }
}

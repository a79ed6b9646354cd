import { type AttemptResult, definePlugin, type Outcome, type Plugin } from "@tokenman/plugin-sdk";
import { type Gate, gate } from "@tokenman/plugin-sdk/testkit";

/** How one exchange ended, as the lifecycle hooks told it. */
export interface Settled {
  readonly path: string;
  readonly outcome: Outcome;
  readonly attempts: readonly { readonly provider: string; readonly result: AttemptResult | undefined }[];
  /** What each attempt's stream said that had failed, by its type; undefined where none did. */
  readonly streamErrors: readonly (string | undefined)[];
  /** How often the exchange was settled: once. */
  times: number;
}

/** A plugin that records outcomes, and asks for usage as a ledger does. */
export interface OutcomeRecorder {
  readonly plugin: Plugin;
  readonly all: readonly Settled[];
  /** Exchanges begun. */
  readonly begun: number;
  /** The exchange that was settled as number `number`; 1 is the first. */
  settled(number: number): Promise<Settled>;
  /** Resolves at the beginning of exchange number `number`. */
  start(number: number): Promise<void>;
}

export function outcomeRecorder(): OutcomeRecorder {
  const all: Settled[] = [];
  const byId = new Map<string, Settled>();
  const gates: Gate<Settled>[] = [];
  const starts: Gate[] = [];
  let begun = 0;
  const plugin = definePlugin({
    name: "outcome-recorder",
    version: "1.0.0",
    apiVersion: 1,
    setup(ctx) {
      ctx.pipeline((_config, hooks) => {
        hooks.request.tap((exchange) => exchange.trackUsage());
        hooks.lifecycle.for("start").tap(() => {
          starts[begun] ??= gate();
          starts[begun++]!.open();
        });
        hooks.lifecycle.for("settled").tap((exchange, outcome) => {
          const known = byId.get(exchange.id);
          if (known !== undefined) {
            known.times++;
            return;
          }
          const settled: Settled = {
            path: exchange.request.path,
            outcome,
            attempts: exchange.attempts.map(({ provider, result }) => ({ provider: provider.name, result })),
            streamErrors: exchange.attempts.map(({ streamError }) => streamError?.type),
            times: 1,
          };
          byId.set(exchange.id, settled);
          const index = all.push(settled) - 1;
          gates[index] ??= gate<Settled>();
          gates[index].open(settled);
        });
      });
    },
  });
  return {
    plugin,
    all,
    get begun() {
      return begun;
    },
    settled(number) {
      gates[number - 1] ??= gate<Settled>();
      return gates[number - 1]!.opened;
    },
    start(number) {
      starts[number - 1] ??= gate();
      return starts[number - 1]!.opened;
    },
  };
}

import { definePlugin, Hedging, renderMetric } from "@tokenman/plugin-sdk";
import { type HedgeCounts, Hedger, mayBeHedged, Rules } from "./hedger.ts";
import { Latencies } from "./latencies.ts";
import { hedgeSchema } from "./schema.ts";
import { Share } from "./share.ts";

/** Asks a second provider beside one that takes longer than it nearly always does. */
export default definePlugin({
  name: "hedge",
  version: "0.1.0",
  apiVersion: 1,
  description: "Asks a second provider beside one that takes long; the first to stream wins",
  section: "resilience.hedge",
  configSchema: hedgeSchema,
  provides: [Hedging],
  stage: "route",
  async setup(ctx) {
    const latencies = await ctx.keep("latencies", () => new Latencies());
    const share = await ctx.keep("share", () => new Share());
    const counts = await ctx.keep("counts", (): HedgeCounts => ({ begun: 0, won: 0 }));
    const hedger = new Hedger({ latencies, share, counts });
    ctx.provide(Hedging, hedger);
    ctx.contribute("metric", {
      name: "hedge",
      render: () =>
        renderMetric({
          name: "tokenman_hedges_total",
          type: "counter",
          help: "Second attempts that were begun beside a slow one, and those of them that won.",
          samples: [
            { labels: { result: "begun" }, value: counts.begun },
            { labels: { result: "won" }, value: counts.won },
          ],
        }),
    });
    ctx.pipeline((effective, hooks) => {
      hooks.request.tap((exchange) => {
        if (!mayBeHedged(exchange)) return;
        share.earn(effective.max_share);
        exchange.set(Rules, effective);
      });
      hooks.lifecycle.for("attemptEnd").tap((exchange, attempt) => {
        if (exchange.get(Rules) !== undefined) hedger.attemptEnd(exchange, attempt);
      });
    });
  },
});

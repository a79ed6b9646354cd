import {
  DecisionMemory,
  Decisions,
  definePlugin,
  optional,
  type Plugin,
  SavingsGuard,
} from "@tokenman/plugin-sdk";
import { Hinter } from "./hinter.ts";
import { HitRates } from "./hit-rate.ts";
import { Memory } from "./memory.ts";
import { Outcomes } from "./outcomes.ts";
import { dedupSchema } from "./schema.ts";
import { Takers } from "./takers.ts";
import { ToolOrders } from "./tool-order.ts";

/** Gives the provider the hints its prompt cache needs, where the client gave none. `now`: replays have their own time. */
export function dedupPlugin({ now = Date.now }: { readonly now?: () => number } = {}): Plugin {
  return definePlugin({
    name: "dedup",
    version: "0.1.0",
    apiVersion: 1,
    description: "Marks what repeats for the provider's own prompt cache",
    section: "compression.dedup",
    configSchema: dedupSchema,
    needs: { decisions: optional(Decisions), guard: optional(SavingsGuard) },
    stage: "shape",
    async setup(ctx) {
      const { guard } = ctx.services;
      const decisions = ctx.services.decisions ?? (await ctx.keep("decisions", () => new DecisionMemory()));
      const memory = await ctx.keep(
        ctx.services.decisions === undefined ? "memory" : "memory with decisions",
        () => new Memory(decisions.book("dedup")),
      );
      const orders = await ctx.keep(
        ctx.services.decisions === undefined ? "tool orders" : "tool orders with decisions",
        () => new ToolOrders(decisions.book("dedup")),
      );
      const rates = await ctx.keep("hit rates", () => new HitRates());
      const outcomes = await ctx.keep("outcomes", () => new Outcomes());
      const takers = await ctx.keep("takers", () => new Takers());
      ctx.contribute("metric", rates.metric());
      ctx.contribute("metric", outcomes.metric());
      ctx.contribute("route", {
        port: "dashboard",
        method: "GET",
        path: "/api/prompt-cache",
        handle: ({ json, query }) => json(200, rates.report(query.get("session") ?? undefined)),
      });
      ctx.pipeline((config, hooks) => {
        const hinter = new Hinter({
          config,
          memory,
          orders,
          outcomes,
          rates,
          takers,
          guard,
          log: ctx.log,
          now,
        });
        hooks.beforeUpstream.tap(hinter.beforeUpstream);
        hooks.lifecycle.for("attemptEnd").tap(hinter.attemptEnd);
        hooks.lifecycle.for("settled").tap(hinter.settled);
      });
    },
  });
}

export default dedupPlugin();

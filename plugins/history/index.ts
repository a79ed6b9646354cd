import {
  Conversations,
  DecisionMemory,
  Decisions,
  definePlugin,
  optional,
  type Plugin,
  Pricing,
  SavingsGuard,
  Tokenizer,
} from "@tokenman/plugin-sdk";
import { HistoryCounts } from "./counts.ts";
import { historySchema } from "./schema.ts";
import { Windower } from "./windower.ts";

/** Leaves the oldest turns of long conversations out where that pays. `now`: replays and tests have their own time. */
export function historyPlugin({ now = Date.now }: { readonly now?: () => number } = {}): Plugin {
  return definePlugin({
    name: "history",
    version: "0.1.0",
    apiVersion: 1,
    description: "Leaves the oldest turns of long conversations out, where that spoils no warm cache",
    section: "compression.history",
    configSchema: historySchema,
    needs: {
      decisions: optional(Decisions),
      tokenizer: optional(Tokenizer),
      pricing: optional(Pricing),
      guard: optional(SavingsGuard),
    },
    stage: "shape",
    async setup(ctx) {
      const { tokenizer, pricing, guard } = ctx.services;
      const decisions = ctx.services.decisions ?? (await ctx.keep("decisions", () => new DecisionMemory()));
      const conversations = await ctx.keep(
        ctx.services.decisions === undefined ? "conversations" : "conversations with decisions",
        () => new Conversations(decisions.book("history")),
      );
      const counts = await ctx.keep("counts", () => new HistoryCounts());
      ctx.contribute("metric", counts.metric());
      ctx.pipeline(({ window_size: window }, hooks) => {
        const parts = { window, conversations, decisions, counts, tokenizer, pricing, guard, now };
        const windower = new Windower({ ...parts, log: ctx.log });
        hooks.request.tap(windower.request);
        hooks.lifecycle.for("settled").tap(windower.settled);
      });
    },
  });
}

export default historyPlugin();

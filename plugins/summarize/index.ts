import {
  Conversations,
  DecisionMemory,
  Decisions,
  definePlugin,
  ModelOverride,
  optional,
  type Plugin,
  Pricing,
  SavingsGuard,
  Tokenizer,
} from "@tokenman/plugin-sdk";
import { SummaryCounts } from "./counts.ts";
import { Drafts } from "./drafts.ts";
import { Maker, NAME } from "./maker.ts";
import { summarizeSchema } from "./schema.ts";
import { Summarizer } from "./summarizer.ts";

/** Sends summaries in the place of the older parts of long conversations. `now`: replays and tests have their own time. */
export function summarizePlugin({ now = Date.now }: { readonly now?: () => number } = {}): Plugin {
  return definePlugin({
    name: NAME,
    version: "0.1.0",
    apiVersion: 1,
    description:
      "Sends a summary in the place of a long conversation's older part, where that spoils no warm cache",
    section: "compression.summarization",
    configSchema: summarizeSchema,
    needs: {
      decisions: optional(Decisions),
      tokenizer: optional(Tokenizer),
      pricing: optional(Pricing),
      guard: optional(SavingsGuard),
      override: optional(ModelOverride),
    },
    stage: "shape",
    async setup(ctx) {
      const { tokenizer, pricing, guard, override } = ctx.services;
      const decisions = ctx.services.decisions ?? (await ctx.keep("decisions", () => new DecisionMemory()));
      const conversations = await ctx.keep(
        ctx.services.decisions === undefined ? "conversations" : "conversations with decisions",
        () => new Conversations(decisions.book(NAME)),
      );
      const drafts = await ctx.keep(
        "drafts",
        () => new Drafts(),
        (kept) => kept.abort(),
      );
      const counts = await ctx.keep("counts", () => new SummaryCounts());
      ctx.contribute(
        "metric",
        counts.metric(() => drafts.underWay),
      );
      ctx.pipeline((config, hooks) => {
        const own = { config, drafts, counts, pricing, log: ctx.log, now };
        const maker = new Maker({ ...own, host: ctx.host, tokenizer });
        const summarizer = new Summarizer({ ...own, maker, conversations, decisions, guard, override });
        hooks.request.tap(summarizer.request);
        hooks.lifecycle.for("settled").tap(summarizer.settled);
      });
    },
  });
}

export default summarizePlugin();

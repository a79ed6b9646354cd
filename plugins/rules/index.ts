import {
  DecisionMemory,
  Decisions,
  definePlugin,
  optional,
  SavingsGuard,
  Tokenizer,
} from "@tokenman/plugin-sdk";
import { RuleCounts } from "./counts.ts";
import { Memo } from "./memo.ts";
import { References } from "./references.ts";
import { Rewriter } from "./rewriter.ts";
import { rulesetOf } from "./ruleset.ts";
import { rulesSchema } from "./schema.ts";

/** Makes texts shorter by rules, each text once and then always alike. */
export default definePlugin({
  name: "rules",
  version: "0.1.0",
  apiVersion: 1,
  description: "Makes prompts shorter by rules; by default only by what loses nothing",
  section: "compression.rules",
  configSchema: rulesSchema,
  needs: { decisions: optional(Decisions), tokenizer: optional(Tokenizer), guard: optional(SavingsGuard) },
  stage: "shape",
  async setup(ctx) {
    const { tokenizer, guard } = ctx.services;
    const decisions = ctx.services.decisions ?? (await ctx.keep("decisions", () => new DecisionMemory()));
    const book = decisions.book("rules");
    const memo = await ctx.keep("memo", () => new Memo());
    const references = await ctx.keep("references", () => new References());
    const counts = await ctx.keep("counts", () => new RuleCounts());
    ctx.contribute("metric", counts.metric());
    ctx.pipeline((config, hooks) => {
      const rules = rulesetOf(config);
      const rewriter = new Rewriter({
        rules,
        book,
        memo,
        references,
        counts,
        tokenizer,
        guard,
        log: ctx.log,
      });
      hooks.request.tap(rewriter.request);
      hooks.beforeUpstream.tap(rewriter.beforeUpstream);
    });
  },
});

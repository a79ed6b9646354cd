import { AttemptPolicy, definePlugin, Hedging, optional } from "@tokenman/plugin-sdk";
import { RetryPolicy, Rules, rulesOf } from "./policy.ts";
import { RetryBudget } from "./retry-budget.ts";
import { retrySchema } from "./schema.ts";

/** Asks another provider, or the same one again, where one failed before it had answered. */
export default definePlugin({
  name: "retry",
  version: "0.1.0",
  apiVersion: 1,
  description: "Tries again, elsewhere or later, when a provider fails before it answers",
  section: "resilience",
  configSchema: retrySchema,
  needs: { hedging: optional(Hedging) },
  provides: [AttemptPolicy],
  stage: "route",
  async setup(ctx) {
    const budget = await ctx.keep("budget", () => new RetryBudget());
    const { hedging } = ctx.services;
    ctx.provide(AttemptPolicy, new RetryPolicy({ rules: rulesOf(ctx.config), budget, hedging }));
    const shared = JSON.stringify(ctx.config);
    ctx.pipeline((effective, hooks) => {
      if (JSON.stringify(effective) === shared) return;
      const rules = rulesOf(effective);
      hooks.request.tap((exchange) => exchange.set(Rules, rules));
    });
  },
});

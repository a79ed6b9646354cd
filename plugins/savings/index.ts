import { definePlugin, Ledger, optional, Pricing, SavingsGuard } from "@tokenman/plugin-sdk";
import { Guard, Share } from "./guard.ts";
import { savingsSchema } from "./schema.ts";
import { Sessions } from "./sessions.ts";
import { TrialSums } from "./trial-sums.ts";

/** How long what is known waits to be told: a session's turns come one by one. */
const GATHER_MS = 2_000;

/** Measures what compressors save by what the provider bills, and keeps them from making things worse. */
export default definePlugin({
  name: "savings",
  version: "0.1.0",
  apiVersion: 1,
  description: "Measures what compression saves, and stops it where it does not",
  section: "compression",
  configSchema: savingsSchema,
  needs: { pricing: optional(Pricing), ledger: optional(Ledger) },
  provides: [SavingsGuard],
  stage: "ingress",
  async setup(ctx) {
    const { holdout } = ctx.config;
    const { pricing, ledger } = ctx.services;
    // What was a loss before a reload is one after it.
    const sessions = await ctx.keep("sessions", () => new Sessions());
    const trials = new TrialSums();
    const tell = (): void => {
      for (const trial of trials.take()) ledger?.trial(trial);
    };
    await ctx.effect("comparison with held-out sessions", () => trials, tell);
    ctx.every("comparison with held-out sessions", GATHER_MS, tell);
    const guard = new Guard({ sessions, pricing, trials, holdout, log: ctx.log });
    ctx.provide(SavingsGuard, guard);
    ctx.pipeline((config, hooks) => {
      if (config.holdout !== holdout)
        hooks.request.tap((exchange) => {
          exchange.set(Share, config.holdout);
        });
      hooks.lifecycle.for("settled").tap(guard.settled);
    });
  },
});

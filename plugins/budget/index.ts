import { Calendar, definePlugin, ERRORS, Ledger, optional, Pricing, Tokenizer } from "@tokenman/plugin-sdk";
import { Alerts } from "./alerts.ts";
import { Books } from "./books.ts";
import { Estimator } from "./estimator.ts";
import { Keeper } from "./keeper.ts";
import { limitsOf } from "./limits.ts";
import { type LimitsInForce, report } from "./report.ts";
import { Reservations } from "./reservations.ts";
import { budgetSchema } from "./schema.ts";

/** How often settlements that the ledger could not take are tried again. */
const RETRY_MS = 5_000;

/** Refuses requests once the money is spent: reserves before dispatch, settles after. */
export default definePlugin({
  name: "budget",
  version: "0.1.0",
  apiVersion: 1,
  description: "Refuses requests once an hour's, day's or month's money is spent",
  section: "security.budget",
  configSchema: budgetSchema,
  needs: { ledger: Ledger, pricing: Pricing, tokenizer: optional(Tokenizer) },
  stage: "admit",
  onError: "closed",
  // Counting a large body takes its time; the ledger has a time-out of its own.
  timeouts: { hookMs: 15_000 },
  async setup(ctx) {
    const { config, log, services } = ctx;
    const { ledger, pricing, tokenizer } = services;
    const books = await ctx.keep("books", () => new Books());
    const alerts = await ctx.effect(
      "alerts",
      () => new Alerts({ log, registry: ctx.host.registry, webhook: config.webhook }),
      (made) => made.close(),
    );
    const calendar = new Calendar(config.time_zone);
    /** Those of all pipelines, and first those of the section itself. */
    const inForce: LimitsInForce[] = [{ limits: config.enabled ? limitsOf(config, config) : [], calendar }];
    ctx.every("settlements", RETRY_MS, async () => {
      for (const [id, { nanoUsd, at, done }] of books.unsettled) {
        await ledger.settle(id, nanoUsd, at);
        if (books.unsettled.delete(id)) done();
      }
    });
    ctx.contribute("route", {
      port: "dashboard",
      method: "GET",
      path: "/api/security/budget",
      async handle({ json }) {
        try {
          json(200, await report(config, inForce, { ledger, books, calendar }));
        } catch (cause) {
          log.warn({ err: cause }, "the budget's figures could not be read");
          const code = "TM_BUDGET_UNAVAILABLE";
          json(ERRORS[code].status, { error: { code, message: ERRORS[code].says } });
        }
      },
    });
    ctx.pipeline((effective, hooks) => {
      const limits = limitsOf(config, effective);
      if (limits.length === 0 && effective.unpriced === "allow") return;
      const zone = effective.time_zone;
      const own = zone === config.time_zone ? calendar : new Calendar(zone);
      inForce.push({ limits, calendar: own });
      const reservations = new Reservations(effective.alert_thresholds, {
        ledger,
        calendar: own,
        books,
        alerts,
        log,
      });
      const estimator = new Estimator({ pricing, tokenizer, outputs: books.outputs, config: effective });
      const keeper = new Keeper(effective, limits, { reservations, pricing, estimator, books, log });
      hooks.request.tap(keeper.request);
      hooks.beforeUpstream.tap(keeper.beforeUpstream);
      if (limits.some(({ kind }) => kind !== "total"))
        hooks.lifecycle.for("attemptEnd").tap(keeper.attemptEnd);
      hooks.lifecycle.for("settled").tap(keeper.settled);
    });
  },
});

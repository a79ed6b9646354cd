import { Bills, definePlugin, type Exchange, Ledger, optional, z } from "@tokenman/plugin-sdk";
import { exposition } from "./exposition.ts";
import { LoopDelay } from "./loop-delay.ts";
import { Meter } from "./meter.ts";
import { Sources } from "./sources.ts";

const WINDOW_MS = 10_000;

const configSchema = z.strictObject({
  max_models: z
    .int()
    .min(1)
    .max(1_000)
    .default(100)
    .describe('How many models have series of their own; the others are "other". A change needs a restart.'),
  plugin_timings: z.boolean().default(true).describe("Measure how long each plugin's hooks take."),
});

function tracked(exchange: Exchange): void {
  if (exchange.dialect?.generates === true) exchange.trackUsage();
}

/** Counts what passes, for Prometheus. */
export default definePlugin({
  name: "metrics",
  version: "0.1.0",
  apiVersion: 1,
  description: "Serves Prometheus metrics at /metrics on the dashboard port",
  section: "metrics",
  configSchema,
  needs: { ledger: optional(Ledger), bills: optional(Bills) },
  stage: "ingress",
  async setup(ctx) {
    const { host, services, config } = ctx;
    const meter = await ctx.keep("meter", () => new Meter(config.max_models));
    const delay = await ctx.keep(
      "loop delay",
      () => new LoopDelay(),
      (monitor) => monitor.stop(),
    );
    ctx.every("event loop delay", WINDOW_MS, () => delay.turn());
    const sources = new Sources(ctx.log);
    const isBilled = services.bills !== undefined;

    /** Counts that others keep, and begin anew with a generation or a store of their own. */
    const lookAround = (): void => {
      const { generation, plugins } = host.status();
      for (const { name, failures } of plugins) meter.failures.at(name).saw(generation, failures);
      if (services.ledger !== undefined) meter.lostRows.saw(services.ledger, services.ledger.state.lost);
    };
    ctx.contribute("route", {
      port: "dashboard",
      method: "GET",
      path: "/metrics",
      handle({ response }) {
        lookAround();
        const own = exposition({ meter, host, delay, isBilled });
        const body = Buffer.from(own + sources.render(host.registry.all("metric"), own));
        response.writeHead(200, {
          "Content-Type": "text/plain; version=0.0.4; charset=utf-8",
          "Content-Length": body.length,
          "Cache-Control": "no-store",
          "X-Content-Type-Options": "nosniff",
        });
        response.end(body);
      },
    });
    if (config.plugin_timings) ctx.contribute("hookObserver", { tapped: meter.tapped });
    ctx.pipeline((_config, hooks) => {
      // Who bills asks for the usage, too. Without: tokens that nobody counts would be told as none.
      if (!isBilled) hooks.request.tap(tracked);
      hooks.response.tap(meter.response);
      hooks.lifecycle.for("settled").tap(meter.settled);
      // At the end of its time, by the one that follows: as yet it is the one that serves.
      hooks.lifecycle.for("ready").tap(() => {
        if (host.generation > 1) lookAround();
      });
      hooks.lifecycle.for("reload").tap(meter.reload);
    });
  },
});

import { definePlugin, Flights, ModelOverride, optional, Pricing } from "@tokenman/plugin-sdk";
import { Answers } from "./answers.ts";
import { heartbeatSchema } from "./schema.ts";
import { modelOf, Sharer } from "./sharer.ts";

/** Lets near-identical polling requests share one answer, and sends those that go out to a cheaper model. */
export default definePlugin({
  name: "heartbeat",
  version: "0.1.0",
  apiVersion: 1,
  description: "Lets near-identical polling requests share one answer",
  section: "compression.heartbeat",
  configSchema: heartbeatSchema,
  needs: { pricing: optional(Pricing) },
  provides: [ModelOverride],
  stage: "shape",
  async setup(ctx) {
    const { host, services } = ctx;
    const answers = await ctx.keep("answers", () => new Answers());
    const flights = await ctx.keep("flights", () => new Flights());
    const usual = usualModel(host.config());
    ctx.provide(ModelOverride, { modelFor: modelOf });
    ctx.pipeline(({ dedup_window_seconds: seconds, heartbeat_model: model, patterns, automatic }, hooks) => {
      if (patterns.length === 0 && !automatic) return;
      const sharer = new Sharer({
        rules: { patterns, automatic },
        windowMs: seconds * 1_000,
        model: model || usual || undefined,
        answers,
        flights,
        pricing: services.pricing,
        secret: () => host.keyFor("heartbeat"),
      });
      hooks.request.tap(sharer.request);
      hooks.response.tap(sharer.response);
      hooks.lifecycle.for("settled").tap(sharer.settled);
    });
  },
});

/** `routing.heartbeat_model`. */
function usualModel(config: Readonly<Record<string, unknown>>): string {
  const routing = config["routing"] as { readonly heartbeat_model?: unknown } | undefined;
  return typeof routing?.heartbeat_model === "string" ? routing.heartbeat_model : "";
}

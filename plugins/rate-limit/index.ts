import { definePlugin, optional, Tokenizer } from "@tokenman/plugin-sdk";
import { Buckets } from "./buckets.ts";
import { Limiter } from "./limiter.ts";
import { Limits } from "./limits.ts";
import { Quotas } from "./quotas.ts";
import { rateLimitSchema } from "./schema.ts";

/** Keeps requests under the providers' limits: a bucket of tokens for each, taken by every attempt. */
export default definePlugin({
  name: "rate-limit",
  version: "0.1.0",
  apiVersion: 1,
  description: "Keeps requests and tokens a minute under each provider's limits",
  section: "security.rate_limit",
  configSchema: rateLimitSchema,
  needs: { tokenizer: optional(Tokenizer) },
  stage: "admit",
  onError: "closed",
  async setup(ctx) {
    const { config, services, host } = ctx;
    const { generation } = host;
    const buckets = await ctx.keep(
      "buckets",
      () => new Buckets(),
      (kept) => kept.close(),
    );
    const quotas = await ctx.keep("quotas", () => new Quotas());
    const shared = new Limits(config, config);
    ctx.pipeline((effective, hooks) => {
      const limits = new Limits(config, effective);
      const { tokenizer } = services;
      const limiter = new Limiter(effective, { limits, buckets, quotas, tokenizer, generation });
      hooks.lifecycle
        .for("ready")
        .tap(() => buckets.configure(generation, (scope, unit) => shared.shared(scope, unit)));
      if (limits.countTokens) hooks.request.tap(limiter.request);
      hooks.beforeUpstream.tap(limiter.beforeUpstream);
      if (effective.adaptive) hooks.response.tap(limiter.response);
      hooks.lifecycle.for("attemptEnd").tap(limiter.attemptEnd);
    });
  },
});

import { type Attempt, definePlugin, type Exchange, slot, Tokenizer } from "@tokenman/plugin-sdk";
import { Corrections } from "./correction.ts";
import { Counter } from "./counter.ts";
import { encodingOf } from "./encoding.ts";
import { type Estimated, TokenCounter } from "./estimate.ts";
import { CountingPool } from "./pool.ts";
import { tokenizerSchema } from "./schema.ts";

/** Threads that die one after the other are reported once in so many milliseconds. */
const REPORT_MS = 60_000;

/** Counts tokens in worker threads, and learns from bills how far its counts are off. */
export default definePlugin({
  name: "tokenizer",
  version: "0.1.0",
  apiVersion: 1,
  description: "Counts tokens locally, in worker threads; learns from what providers bill",
  section: "tokenizer",
  configSchema: tokenizerSchema,
  provides: [Tokenizer],
  async setup(ctx) {
    const { workers, idle_seconds, memory_entries, track_usage } = ctx.config;
    const corrections = await ctx.keep("corrections", () => new Corrections());
    let reportedAt = Number.NEGATIVE_INFINITY;
    const { log } = ctx;
    const pool = await ctx.keep(
      `pool ${workers} ${idle_seconds}`,
      () =>
        new CountingPool({
          size: workers,
          idleMs: idle_seconds * 1000,
          onCrash(error) {
            if (performance.now() - reportedAt < REPORT_MS) return;
            reportedAt = performance.now();
            log.warn({ err: error }, "a thread that counts tokens died; another one takes over");
          },
        }),
      (made) => made.close(),
    );
    const counter = await ctx.keep(
      `counter ${workers} ${idle_seconds} ${memory_entries}`,
      () => new Counter(pool, memory_entries),
    );
    const ESTIMATED = slot<Estimated>("estimate of the input");
    const service = new TokenCounter(counter, corrections, (exchange, estimated) =>
      exchange.set(ESTIMATED, estimated),
    );
    ctx.provide(Tokenizer, service);
    ctx.pipeline((_config, hooks) => {
      hooks.lifecycle.for("attemptEnd").tap((exchange, attempt) => {
        const estimated = exchange.get(ESTIMATED);
        if (estimated !== undefined) learn(service, exchange, attempt, estimated);
      });
      if (track_usage) hooks.request.tap((exchange) => exchange.trackUsage());
    });
  },
});

/** Learns from an attempt that billed what was estimated: the same body, counted with the model's own encoding. */
function learn(
  service: TokenCounter,
  exchange: Exchange,
  { usage, candidate }: Attempt,
  estimated: Estimated,
): void {
  if (usage?.source !== "provider" || exchange.edited !== estimated.edited) return;
  const model = candidate.model ?? exchange.description?.model;
  if (model === undefined || encodingOf(model) !== estimated.encoding) return;
  const billed =
    usage.inputTokens + usage.cacheReadTokens + usage.cacheWrite5mTokens + usage.cacheWrite1hTokens;
  service.learn(model, estimated.uncorrected, billed);
}

import crypto from "node:crypto";
import { join } from "node:path";
import { definePlugin, type HostStatus, optional, Pricing, renderMetric, type z } from "@tokenman/plugin-sdk";
import { Cache } from "./cache.ts";
import { cacheCommands } from "./commands.ts";
import { Lookup } from "./lookup.ts";
import { cacheRoutes } from "./routes.ts";
import { type CacheConfig, cacheSchema, metricsSchema } from "./schema.ts";

const FILE = "cache.db";
/** Sections that decide what a request is answered: with another provider, say, the old answers are no longer the answers. */
const DECISIVE = ["providers", "routing", "compression", "security", "plugins", "projects"] as const;

/** Answers identical requests from a store, and sends one of those that come at the same time. */
export default definePlugin({
  name: "cache",
  version: "0.1.0",
  apiVersion: 1,
  description: "Answers identical requests from a store",
  section: "cache",
  configSchema: cacheSchema,
  extraSections: { metrics: metricsSchema },
  needs: { pricing: optional(Pricing) },
  stage: "lookup",
  commands: cacheCommands,
  async setup(ctx) {
    const { config, host, services, log } = ctx;
    const { cache_ttl_seconds: ttlSeconds } = ctx.section("metrics") as z.output<typeof metricsSchema>;
    const file = join(host.dataDir, FILE);
    const cache = await ctx.keep(
      `cache ${file}`,
      () => new Cache(file, log),
      (kept) => kept.close(),
    );
    const decisive = decisiveIn(host.config());
    let known: string | undefined;
    // Which plugins there are is told from this generation's first request on. A list on the command line is in no config.
    const scope = (): string => (known ??= scopeOf(decisive, host.version, host.status()));
    const ttlOf = (effective: CacheConfig): number => (effective.ttl_seconds ?? ttlSeconds) * 1_000;
    let longestMs = ttlOf(config);
    for (const route of cacheRoutes(cache)) ctx.contribute("route", route);
    ctx.contribute("metric", { name: "cache", render: () => metricsOf(cache) });
    ctx.pipeline((effective, hooks) => {
      const ttlMs = ttlOf(effective);
      longestMs = Math.max(longestMs, ttlMs);
      hooks.lifecycle.for("ready").tap(() =>
        cache.configure({
          memoryBytes: config.memory_bytes,
          diskBytes: config.disk_bytes,
          ttlMs: longestMs,
        }),
      );
      if (ttlMs === 0 && !effective.coalesce) return;
      const lookup = new Lookup({
        cache,
        config: effective,
        ttlMs,
        scope,
        secret: () => host.keyFor("response cache"),
        pricing: services.pricing,
      });
      hooks.request.tap(lookup.request);
      hooks.response.tap(lookup.response);
      hooks.lifecycle.for("settled").tap(lookup.settled);
    });
  },
});

function decisiveIn(config: Readonly<Record<string, unknown>>): string {
  // How long a project keeps answers does not change them, nor where plugins lie.
  return JSON.stringify(
    DECISIVE.map((name) => config[name] ?? null),
    (key, value: unknown) => (key === "cache" || key === "dir" ? undefined : value),
  );
}
/** A plugin that was edited may make other requests and replies of them: its answers are not those of before. */
function scopeOf(decisive: string, host: string, { plugins }: Pick<HostStatus, "plugins">): string {
  const loaded = plugins
    .filter(({ state }) => state !== "off")
    .map(({ name, version, digest }) => [name, version, digest]);
  return crypto.hash("sha256", decisive + JSON.stringify([host, loaded]), "base64url");
}

function metricsOf(cache: Cache): string {
  const { memory, disk, inFlight } = cache.stats();
  const tiers = (of: "entries" | "bytes") => [
    { labels: { tier: "memory" }, value: memory[of] },
    { labels: { tier: "disk" }, value: disk[of] },
  ];
  return (
    renderMetric({
      name: "tokenman_cache_entries",
      type: "gauge",
      help: "Answers in the response cache.",
      samples: tiers("entries"),
    }) +
    renderMetric({
      name: "tokenman_cache_bytes",
      type: "gauge",
      help: "Bytes of answers in the response cache.",
      samples: tiers("bytes"),
    }) +
    renderMetric({
      name: "tokenman_cache_in_flight",
      type: "gauge",
      help: "Requests whose answer others may share while it comes.",
      samples: [{ value: inFlight }],
    })
  );
}

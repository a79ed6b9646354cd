import { AttemptPolicy, type AttemptPolicy as Policy } from "@tokenman/plugin-sdk";
import type { AccessRules } from "./access.ts";
import type { Config } from "./config/index.ts";
import { DialectTable } from "./dialect-table.ts";
import { singleAttempt } from "./driver.ts";
import type { Generation } from "./generation/index.ts";
import type { Pipeline } from "./pipeline.ts";
import { RouteTable } from "./route-table.ts";

/** What the request's way needs of a generation, worked out once for it. */
export interface Serving {
  readonly generation: Generation;
  readonly dialects: DialectTable;
  readonly proxyRoutes: RouteTable;
  readonly dashboardRoutes: RouteTable;
  readonly access: AccessRules;
  readonly demandToken: { readonly proxy: boolean; readonly dashboard: boolean };
  readonly limits: Limits;
  policy(project: string): Policy;
}

/** Sizes in bytes, times in milliseconds; 0 is no limit. */
export interface Limits {
  readonly maxBodyBytes: number;
  readonly maxResponseBytes: number;
  readonly readMs: number;
  readonly writeMs: number;
  readonly streamIdleMs: number;
}

const made = new WeakMap<Generation, Serving>();

export function remember(generation: Generation, config: Config): void {
  made.set(generation, build(generation, config));
}
/** What {@link remember} worked out. */
export function servingOf(generation: Generation): Serving {
  return made.get(generation)!;
}

function build(generation: Generation, config: Config): Serving {
  const { server, auth } = config;
  const { registry } = generation;
  const policies = new Map<Pipeline, Policy>();
  const dashboard = config.section("dashboard") as
    | { readonly allowed_origins?: readonly string[] }
    | undefined;
  return {
    generation,
    dialects: new DialectTable(registry),
    proxyRoutes: new RouteTable(registry, "proxy"),
    dashboardRoutes: new RouteTable(registry, "dashboard"),
    access: {
      allowedHosts: new Set(server.allowed_hosts.map((host) => host.toLowerCase())),
      allowedOrigins: new Set((dashboard?.allowed_origins ?? []).map((origin) => origin.toLowerCase())),
      token: auth.enabled ? auth.token : undefined,
    },
    demandToken: { proxy: auth.enabled && auth.proxy, dashboard: auth.enabled },
    limits: {
      maxBodyBytes: server.max_body_size,
      maxResponseBytes: server.max_response_size,
      readMs: server.read_timeout * 1000,
      writeMs: server.write_timeout * 1000,
      streamIdleMs: server.stream_timeout * 1000,
    },
    policy(project) {
      const pipeline = generation.pipelineFor(project);
      let policy = policies.get(pipeline);
      if (policy === undefined) {
        policy = generation.service(AttemptPolicy, project) ?? singleAttempt;
        policies.set(pipeline, policy);
      }
      return policy;
    },
  };
}

import { AttemptPolicy, type Logger } from "@tokenman/plugin-sdk";
import type { AccessRules } from "./access.ts";
import type { Config } from "./config/index.ts";
import { DialectTable } from "./dialect-table.ts";
import { singleAttempt } from "./driver.ts";
import type { ExchangeHome } from "./exchange.ts";
import type { Generation } from "./generation/index.ts";
import type { Pipeline } from "./hooks/pipeline.ts";
import type { KeyedHash } from "./keyed-hash.ts";
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
  /** What exchanges of a project need of the generation; projects of equal config share it. */
  home(project: string): ExchangeHome;
}

/** Sizes in bytes, times in milliseconds; 0 is no limit. */
export interface Limits {
  readonly maxBodyBytes: number;
  readonly readMs: number;
  readonly writeMs: number;
}

const made = new WeakMap<Generation, Serving>();

/** Works out what a generation's exchanges need. */
export function remember(generation: Generation, config: Config, log: Logger, hash: KeyedHash): void {
  made.set(generation, build(generation, config, log, hash));
}
/** What {@link remember} worked out. */
export function servingOf(generation: Generation): Serving {
  return made.get(generation)!;
}

function build(generation: Generation, config: Config, log: Logger, hash: KeyedHash): Serving {
  const { server, auth } = config;
  const { registry } = generation;
  const dialects = new DialectTable(registry);
  const homes = new Map<Pipeline, ExchangeHome>();
  const dashboard = config.section("dashboard") as
    | { readonly allowed_origins?: readonly string[] }
    | undefined;
  return {
    generation,
    dialects,
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
      readMs: server.read_timeout * 1000,
      writeMs: server.write_timeout * 1000,
    },
    home(project) {
      const pipeline = generation.pipelineFor(project);
      let home = homes.get(pipeline);
      if (home === undefined) {
        home = {
          pipeline,
          policy: generation.service(AttemptPolicy, project) ?? singleAttempt,
          maxResponseBytes: server.max_response_size,
          streamIdleMs: server.stream_timeout * 1000,
          formats: dialects.formats,
          hash,
          release: () => generation.release(),
          dialectFailed: (dialect, what, cause) =>
            log.error({ err: cause, dialect: dialect.name, what }, "a dialect threw, which it must not"),
        };
        homes.set(pipeline, home);
      }
      return home;
    },
  };
}

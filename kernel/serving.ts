import { AttemptPolicy, type Logger } from "@tokenman/plugin-sdk";
import type { AccessRules } from "./access.ts";
import { singleAttempt } from "./attempt-policy.ts";
import type { Config } from "./config/index.ts";
import { DialectTable } from "./dialect-table.ts";
import type { ExchangeHome } from "./exchange.ts";
import type { Generation } from "./generation/index.ts";
import type { Pipeline } from "./hooks/pipeline.ts";
import type { KeyedHash } from "./keyed-hash.ts";
import type { BodyLimits } from "./request.ts";
import { RouteTable } from "./route-table.ts";

/** The bound of a decoded copy where `max_body_size` sets none. */
const MAX_DECODED_BYTES = 256 * 1024 * 1024;

/** One of the two ports, as a generation has it. */
export interface Port {
  readonly name: "proxy" | "dashboard";
  /** What plugins serve there. */
  readonly routes: RouteTable;
  /** Whether it wants TokenMan's own token. */
  readonly demandsToken: boolean;
}

/** Sizes in bytes, times in milliseconds; 0 is no limit. */
export interface Limits {
  readonly body: BodyLimits;
  /** Of a request's decoded copy: this one is a limit always. */
  readonly decodedBytes: number;
  readonly writeMs: number;
}

/** A generation with what the request's way needs of it, worked out once. */
export class Serving {
  readonly generation: Generation;
  readonly dialects: DialectTable;
  readonly proxy: Port;
  readonly dashboard: Port;
  readonly access: AccessRules;
  readonly limits: Limits;
  readonly #homes = new Map<Pipeline, ExchangeHome>();
  readonly #shared: Omit<ExchangeHome, "pipeline" | "policy">;

  constructor(generation: Generation, config: Config, hash: KeyedHash, log: Logger) {
    const { server, auth } = config;
    const { registry } = generation;
    const dashboard = config.section("dashboard") as
      | { readonly allowed_origins?: readonly string[] }
      | undefined;
    this.generation = generation;
    this.dialects = new DialectTable(registry);
    this.proxy = {
      name: "proxy",
      routes: new RouteTable(registry, "proxy"),
      demandsToken: auth.enabled && auth.proxy,
    };
    this.dashboard = {
      name: "dashboard",
      routes: new RouteTable(registry, "dashboard"),
      demandsToken: auth.enabled,
    };
    this.access = {
      allowedHosts: new Set(server.allowed_hosts.map((host) => host.toLowerCase())),
      allowedOrigins: new Set((dashboard?.allowed_origins ?? []).map((origin) => origin.toLowerCase())),
      token: auth.enabled ? auth.token : undefined,
    };
    this.limits = {
      body: { maxBytes: server.max_body_size, stallMs: server.read_timeout * 1000 },
      decodedBytes: server.max_body_size || MAX_DECODED_BYTES,
      writeMs: server.write_timeout * 1000,
    };
    this.#shared = {
      maxResponseBytes: server.max_response_size,
      streamIdleMs: server.stream_timeout * 1000,
      formats: this.dialects.formats,
      hash,
      release: () => generation.release(),
      dialectFailed: (dialect, what, cause) =>
        log.error({ err: cause, dialect: dialect.name, what }, "a dialect threw, which it must not"),
    };
  }

  /** What exchanges of a project need of the generation; projects of equal config share it. */
  home(project: string): ExchangeHome {
    const pipeline = this.generation.pipelineFor(project);
    let home = this.#homes.get(pipeline);
    if (home === undefined) {
      const policy = this.generation.service(AttemptPolicy, project) ?? singleAttempt;
      home = { pipeline, policy, ...this.#shared };
      this.#homes.set(pipeline, home);
    }
    return home;
  }
}

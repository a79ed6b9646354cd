import type { IncomingMessage, ServerResponse } from "node:http";
import type { Dialect } from "./dialect.ts";
import type { Exchange } from "./exchange.ts";
import type { Format } from "./format.ts";
import type { Provider } from "./provider.ts";

/** What a plugin can add to a generation with `ctx.contribute(kind, value)`. */
export interface Contributions {
  readonly format: Format;
  readonly dialect: Dialect;
  readonly provider: Provider;
  readonly route: Route;
  readonly metric: MetricSource;
  readonly panel: Panel;
  readonly health: HealthCheck;
  readonly hookObserver: HookObserver;
  readonly alertSink: AlertSink;
}
export type ContributionKind = keyof Contributions;

/** An HTTP endpoint. Host and Origin are checked, and on the dashboard port `[auth]`, before the handler runs. */
export interface Route {
  readonly port: "proxy" | "dashboard" | "both";
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "DELETE";
  /** Absolute path; `:name` stands for one segment, a trailing `/*` for the rest. */
  readonly path: string;
  /** Served without the `[auth]` token: health probes only. */
  readonly public?: boolean;
  handle(context: RouteContext): void | Promise<void>;
}

export interface RouteContext {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly params: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  /** Named by the request's header or path; undefined on the dashboard's port, and where the request names none. */
  readonly project: string | undefined;
  /** The body, at most `maxBytes` (default 1 MiB). Throws TM_BODY_TOO_LARGE. */
  body(maxBytes?: number): Promise<Buffer>;
  json(status: number, value: unknown): void;
}

/** Renders lines of the Prometheus text format for `/metrics`. */
export interface MetricSource {
  readonly name: string;
  render(): string;
}

/** A card of the dashboard, fed by one of the plugin's routes. */
export interface Panel {
  readonly id: string;
  readonly title: string;
  readonly path: string;
}

/**
 * Times hooks. Woven in when a pipeline is compiled; without a contribution the code does not exist. Synchronous, and
 * must not throw.
 */
export interface HookObserver {
  /** Around each plugin's tap. `durationMs` is monotonic and includes `ex.wait`. */
  tapped(
    plugin: string,
    hook: "request" | "beforeUpstream" | "response",
    exchange: Exchange,
    durationMs: number,
  ): void;
}

/** One line of `/health/ready`. */
export interface HealthCheck {
  readonly name: string;
  /** `ok: false` with `required: true` makes the whole instance not ready. */
  check(): Promise<HealthResult> | HealthResult;
  readonly required: boolean;
}
export interface HealthResult {
  readonly ok: boolean;
  readonly detail?: string;
}

/** Something that people want to know at once, such as a budget that is nearly spent. */
export interface Alert {
  /** What it is about, for machines: "budget". */
  readonly kind: string;
  /** Milliseconds since the epoch. */
  readonly at: number;
  /** A sentence. */
  readonly message: string;
  readonly facts: Readonly<Record<string, string | number | boolean>>;
}

/**
 * Passes alerts on: to a feed, a dashboard. Whoever has an alert calls all sinks of the registry. Synchronous, and must
 * not throw.
 */
export interface AlertSink {
  readonly name: string;
  alert(alert: Alert): void;
}

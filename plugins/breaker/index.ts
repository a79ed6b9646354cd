import {
  type CircuitState,
  Circuits,
  type CircuitView,
  definePlugin,
  type Provider,
  renderMetric,
  type Slot,
  slot,
} from "@tokenman/plugin-sdk";
import type { CircuitRules, Refusal, Ticket } from "./circuit.ts";
import { ProviderCircuits } from "./circuits.ts";
import { circuitCommand } from "./commands.ts";
import { judge } from "./judge.ts";
import { type BreakerConfig, breakerSchema } from "./schema.ts";

const Asking: Slot<Ticket> = slot<Ticket>("breaker.ticket");
const GAUGE: Readonly<Record<CircuitState, number>> = { closed: 0, open: 1, "half-open": 2 };

/** Leaves a provider alone that keeps failing, and tries now and then whether it is back. */
export default definePlugin({
  name: "breaker",
  version: "0.1.0",
  apiVersion: 1,
  description: "Stops asking a provider that keeps failing, until a probe succeeds",
  section: "resilience",
  configSchema: breakerSchema,
  provides: [Circuits],
  stage: "admit",
  commands: [circuitCommand],
  async setup(ctx) {
    const { config, log } = ctx;
    const { registry } = ctx.host;
    const circuits = await ctx.keep("circuits", () => new ProviderCircuits());
    const shared = rulesOf(config);
    // One circuit counts for all projects, so its window cannot differ between them.
    const windowMs = config.cb_window_seconds * 1_000;
    const tell = (provider: string, { state, reason }: CircuitView) => {
      const why = state === "open" ? `: ${reason}` : "";
      const message = `the circuit of ${provider} is ${state}${why}`;
      log[state === "open" ? "warn" : "info"]({ provider, state, reason }, message);
      const alert = { kind: "circuit", at: Date.now(), message, facts: { provider, state } };
      for (const sink of registry.all("alertSink")) sink.alert(alert);
    };
    const service: Circuits = {
      states: () => registry.all("provider").map((provider) => circuits.view(provider, shared)),
      force(name, state) {
        const provider = registry.all("provider").find((each) => each.name === name);
        if (provider === undefined) return undefined;
        circuits.force(provider, windowMs, state);
        const view = circuits.view(provider, shared);
        tell(name, view);
        return view;
      },
    };
    ctx.provide(Circuits, service);
    ctx.contribute("metric", {
      name: "breaker",
      render: () =>
        renderMetric({
          name: "tokenman_provider_circuit_state",
          type: "gauge",
          help: "Whether a provider is asked: 0 closed, 1 open, 2 half-open.",
          samples: registry.all("provider").map((provider) => ({
            labels: { provider: provider.name },
            value: GAUGE[circuits.state(provider)],
          })),
        }),
    });
    ctx.contribute("route", {
      port: "dashboard",
      method: "GET",
      path: "/api/circuits",
      handle: ({ json }) => json(200, { circuits: service.states() }),
    });
    ctx.contribute("route", {
      port: "dashboard",
      method: "POST",
      path: "/api/providers/:name/circuit",
      async handle({ params, body, json }) {
        const state = stateIn(await body());
        if (state === undefined) {
          const message = 'expected {"state": "open"}, "closed" or "auto"';
          json(400, { error: { code: "TM_BAD_REQUEST", message } });
          return;
        }
        const view = service.force(params["name"]!, state);
        if (view === undefined) json(404, { error: { code: "TM_NOT_FOUND", message: "no such provider" } });
        else json(200, view);
      },
    });
    ctx.pipeline((effective, hooks) => {
      if (!effective.circuit_breaker_enabled) return;
      const rules = rulesOf(effective);
      const settle = (
        provider: Provider,
        ticket: Ticket,
        verdict: Parameters<ProviderCircuits["settle"]>[2],
      ) => {
        if (circuits.settle(provider, ticket, verdict, rules) !== undefined)
          tell(provider.name, circuits.view(provider, rules));
      };
      hooks.beforeUpstream.tap((_exchange, attempt) => {
        const admitted = circuits.admit(attempt.provider, windowMs, rules);
        if ("why" in admitted) return { skip: WHY[admitted.why](admitted) };
        attempt.set(Asking, admitted);
      });
      hooks.response.tap(({ attempt }) => {
        const ticket = attempt?.get(Asking);
        if (ticket?.isProbe === true) circuits.answered(attempt!.provider, ticket);
      });
      hooks.lifecycle.for("attemptEnd").tap((_exchange, attempt) => {
        const ticket = attempt.get(Asking);
        if (ticket !== undefined)
          settle(attempt.provider, ticket, judge(attempt, effective.cb_count_rate_limits));
      });
    });
  },
});

const WHY: Readonly<Record<Refusal["why"], (refusal: Refusal) => string>> = {
  forced: () => "its circuit was opened by hand",
  open: ({ forMs = 0 }) =>
    `its circuit is open after failures; it is tried again in ${Math.ceil(forMs / 1_000)} s`,
  probing: () => "its circuit is half-open, and another request is trying it",
};

function rulesOf(config: BreakerConfig): CircuitRules {
  return {
    threshold: config.cb_failure_threshold,
    errorRate: config.cb_error_rate,
    minCalls: config.cb_min_calls,
    resetMs: config.cb_reset_timeout_seconds * 1_000,
    probes: config.cb_half_open_max_calls,
  };
}

function stateIn(body: Buffer): "open" | "closed" | "auto" | undefined {
  try {
    const { state } = JSON.parse(body.toString("utf8")) as { readonly state?: unknown };
    return state === "open" || state === "closed" || state === "auto" ? state : undefined;
  } catch {
    return undefined;
  }
}

import {
  type Attempt,
  type CircuitState,
  Circuits,
  definePlugin,
  type Exchange,
  renderMetric,
  type Slot,
  slot,
  type Verdict,
} from "@tokenman/plugin-sdk";
import type { CircuitRules, Refusal } from "./circuit.ts";
import { type Admission, ProviderCircuits, type Tell } from "./circuits.ts";
import { circuitCommand } from "./commands.ts";
import { judge } from "./judge.ts";
import { type BreakerConfig, breakerSchema } from "./schema.ts";

/** What an attempt was given, until it is known what came of it. */
const Admitted: Slot<Admission | undefined> = slot<Admission | undefined>("breaker.admission");
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
    const tell: Tell = (provider, model) => {
      const { name } = provider;
      const view = circuits.view(provider, shared);
      const { state, reason } = view.models.find((each) => each.model === model) ?? view;
      const what = model === undefined ? { provider: name } : { provider: name, model };
      const why = state === "open" ? `: ${reason}` : "";
      const message = `the circuit of ${name}${model === undefined ? "" : `'s ${model}`} is ${state}${why}`;
      log[state === "open" ? "warn" : "info"]({ ...what, state, reason }, message);
      const alert = { kind: "circuit", at: Date.now(), message, facts: { ...what, state } };
      for (const sink of registry.all("alertSink")) sink.alert(alert);
    };
    const service: Circuits = {
      states: () => registry.all("provider").map((provider) => circuits.view(provider, shared)),
      force(name, state) {
        const provider = registry.all("provider").find((each) => each.name === name);
        if (provider === undefined) return undefined;
        circuits.force(provider, windowMs, state);
        tell(provider, undefined);
        return circuits.view(provider, shared);
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
            value: GAUGE[circuits.view(provider, shared).state],
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
      const settle = (exchange: Exchange, attempt: Attempt): void => {
        const admission = attempt.get(Admitted);
        if (admission === undefined) return;
        const judgement = judge(attempt, effective.cb_count_rate_limits);
        if (judgement === "neither" && attempt.result === undefined) return;
        attempt.set(Admitted, undefined);
        circuits.settle(exchange, attempt, admission, judgement, rules, tell);
      };
      hooks.beforeUpstream.tap((exchange, attempt) => {
        const { attempts } = exchange;
        // A failed reply that is kept for want of a better one has not ended, and is known to have failed.
        if (attempts.length > 1) for (const earlier of attempts) settle(exchange, earlier);
        const admission = circuits.admit(exchange, attempt, windowMs, rules, tell);
        if ("why" in admission) return skipped(admission);
        attempt.set(Admitted, admission);
      });
      hooks.lifecycle.for("attemptEnd").tap(settle);
    });
  },
});

/** How long a probe that was sent a moment ago is given to answer. */
const PROBE_MS = 1_000;

function skipped({ why, forMs = 0, isModels }: Refusal): Verdict {
  const circuit = isModels ? "its circuit for this model" : "its circuit";
  switch (why) {
    case "forced":
      return { skip: "its circuit was opened by hand" };
    case "open": {
      const seconds = Math.ceil(forMs / 1_000);
      return {
        skip: `${circuit} is open after failures; it is tried again in ${seconds} s`,
        retryAfterMs: forMs,
      };
    }
    case "probing":
      return {
        skip: `${circuit} is half-open, and another request is trying it`,
        retryAfterMs: PROBE_MS,
      };
  }
}

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

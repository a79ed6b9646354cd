import type { CircuitState, CircuitView, Provider } from "@tokenman/plugin-sdk";
import { Circuit, type CircuitRules, type Refusal, type Ticket, type Verdict } from "./circuit.ts";

interface Entry {
  readonly circuit: Circuit;
  /** Where the provider was then: what is known of one server says nothing about another. */
  readonly apiBase: string | undefined;
  readonly windowMs: number;
}

/** The circuits of all providers, by name. Kept over reloads. */
export class ProviderCircuits {
  readonly #entries = new Map<string, Entry>();
  readonly #now: () => number;

  /** `now`: monotonic milliseconds. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  admit(provider: Provider, windowMs: number, rules: CircuitRules): Ticket | Refusal {
    return this.#of(provider, windowMs).admit(this.#now(), rules);
  }
  answered(provider: Provider, ticket: Ticket): void {
    this.#known(provider)?.answered(ticket);
  }
  settle(
    provider: Provider,
    ticket: Ticket,
    verdict: Verdict,
    rules: CircuitRules,
  ): CircuitState | undefined {
    return this.#known(provider)?.settle(ticket, verdict, this.#now(), rules);
  }
  force(provider: Provider, windowMs: number, state: "open" | "closed" | "auto"): void {
    this.#of(provider, windowMs).force(state, this.#now());
  }
  state(provider: Provider): CircuitState {
    return this.#known(provider)?.state ?? "closed";
  }

  view(provider: Provider, rules: CircuitRules): CircuitView {
    const circuit = this.#known(provider);
    const now = this.#now();
    const { calls, failures } = circuit?.recent(now) ?? { calls: 0, failures: 0 };
    return {
      provider: provider.name,
      state: circuit?.state ?? "closed",
      forced: circuit?.isForced ?? false,
      failuresInRow: circuit?.failuresInRow ?? 0,
      recentCalls: calls,
      recentFailures: failures,
      openedAt:
        circuit?.openedAt === undefined ? undefined : Math.round(Date.now() - (now - circuit.openedAt)),
      probeInMs: circuit?.probeInMs(now, rules),
      reason: circuit?.reason,
    };
  }

  #known(provider: Provider): Circuit | undefined {
    const entry = this.#entries.get(provider.name);
    return entry?.apiBase === provider.apiBase ? entry?.circuit : undefined;
  }
  #of(provider: Provider, windowMs: number): Circuit {
    const entry = this.#entries.get(provider.name);
    if (entry !== undefined && entry.apiBase === provider.apiBase && entry.windowMs === windowMs)
      return entry.circuit;
    const circuit = new Circuit(windowMs);
    this.#entries.set(provider.name, { circuit, apiBase: provider.apiBase, windowMs });
    return circuit;
  }
}

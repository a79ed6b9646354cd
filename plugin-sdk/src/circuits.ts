import { type ServiceToken, service } from "./service.ts";

/** Whether it is asked: always, not at all, or one request at a time until it has shown that it works. */
export type CircuitState = "closed" | "open" | "half-open";

/** What is known of one circuit. */
export interface CircuitFigures {
  readonly state: CircuitState;
  /** Failures since the last success. */
  readonly failuresInRow: number;
  /** Attempts that were judged within the sliding window, and how many of them failed. */
  readonly recentCalls: number;
  readonly recentFailures: number;
  /** Milliseconds since the epoch; undefined while it is closed. */
  readonly openedAt: number | undefined;
  /** Milliseconds until a probe is let through; undefined where none is waited for. */
  readonly probeInMs: number | undefined;
  /** Why it opened the last time, in words. */
  readonly reason: string | undefined;
}

/** One provider's circuit; where that of its only model in use is not closed, the figures are that one's. */
export interface CircuitView extends CircuitFigures {
  readonly provider: string;
  /** Whether somebody set the state by hand; it then stays until it is set to "auto". */
  readonly forced: boolean;
  /** The models that failed lately while the provider could be reached, each with a circuit of its own. */
  readonly models: readonly (CircuitFigures & { readonly model: string })[];
}

/** Which providers are not asked at present because they keep failing. */
export interface Circuits {
  /** One for each provider of the generation, in its order. */
  states(): readonly CircuitView[];
  /**
   * Sets a provider's circuit by hand, whatever its models' say; "auto" closes it and them, and lets them work by
   * themselves again. Undefined for an unknown provider.
   */
  force(provider: string, state: "open" | "closed" | "auto"): CircuitView | undefined;
}

export const Circuits: ServiceToken<Circuits> = service<Circuits>("Circuits");

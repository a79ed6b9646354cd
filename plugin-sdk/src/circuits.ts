import { type ServiceToken, service } from "./service.ts";

/** Whether a provider is asked: always, not at all, or one request at a time until it has shown that it works. */
export type CircuitState = "closed" | "open" | "half-open";

/** What is known of one provider's circuit. */
export interface CircuitView {
  readonly provider: string;
  readonly state: CircuitState;
  /** Whether somebody set the state by hand; it then stays until it is set to "auto". */
  readonly forced: boolean;
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

/** Which providers are not asked at present because they keep failing. */
export interface Circuits {
  /** One for each provider of the generation, in its order. */
  states(): readonly CircuitView[];
  /** Sets a circuit by hand; "auto" closes it and lets it work by itself again. Undefined for an unknown provider. */
  force(provider: string, state: "open" | "closed" | "auto"): CircuitView | undefined;
}

export const Circuits: ServiceToken<Circuits> = service<Circuits>("Circuits");

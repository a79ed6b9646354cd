import { type MetricSource, renderMetric } from "@tokenman/plugin-sdk";

/**
 * What became of a request: hints were given; the client gave its own; it may not be touched (a subscription, a header,
 * the savings guard); it is the first of its kind; its client names no sessions; hints would not pay; it is too short; it is no conversation that can
 * be read; or the provider does not take hints.
 */
export const OUTCOMES = [
  "hinted",
  "client",
  "untouched",
  "first",
  "unnamed",
  "dear",
  "short",
  "unreadable",
  "provider",
] as const;
export type HintOutcome = (typeof OUTCOMES)[number];

/** Counts them. */
export class Outcomes {
  readonly #counts = new Map<HintOutcome, number>();

  count(outcome: HintOutcome): void {
    this.#counts.set(outcome, (this.#counts.get(outcome) ?? 0) + 1);
  }
  of(outcome: HintOutcome): number {
    return this.#counts.get(outcome) ?? 0;
  }
  metric(): MetricSource {
    return {
      name: "cache-hints",
      render: () =>
        renderMetric({
          name: "tokenman_cache_hints_total",
          type: "counter",
          help: "Requests by whether hints for the provider's prompt cache were added.",
          samples: OUTCOMES.map((outcome) => ({ labels: { outcome }, value: this.of(outcome) })),
        }),
    };
  }
}

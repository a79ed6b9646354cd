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
  #reordered = 0;

  count(outcome: HintOutcome): void {
    this.#counts.set(outcome, (this.#counts.get(outcome) ?? 0) + 1);
  }
  /** A request's tools went out in another order than they came. */
  reordered(): void {
    this.#reordered++;
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
        }) +
        renderMetric({
          name: "tokenman_tools_reordered_total",
          type: "counter",
          help: "Requests whose tools went out in the order in which their session first sent them.",
          samples: [{ labels: {}, value: this.#reordered }],
        }),
    };
  }
}

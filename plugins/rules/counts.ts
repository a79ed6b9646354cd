import { type MetricSource, renderMetric } from "@tokenman/plugin-sdk";

/**
 * What was decided about texts that a rule would change: sent shorter, no shorter in tokens, or left alone since nobody
 * could count them; and requests in which no text could be found.
 */
const OUTCOMES = ["shorter", "no-shorter", "uncounted", "unreadable"] as const;
export type RuleOutcome = (typeof OUTCOMES)[number];

export class RuleCounts {
  readonly #counts = new Map<RuleOutcome, number>();

  count(outcome: RuleOutcome): void {
    this.#counts.set(outcome, (this.#counts.get(outcome) ?? 0) + 1);
  }
  metric(): MetricSource {
    return {
      name: "rules",
      render: () =>
        renderMetric({
          name: "tokenman_rules_decisions_total",
          type: "counter",
          help: "Texts that the compression rules decided about, and requests that they could not read.",
          samples: OUTCOMES.map((outcome) => ({
            labels: { outcome },
            value: this.#counts.get(outcome) ?? 0,
          })),
        }),
    };
  }
}

import { type MetricSource, renderMetric } from "@tokenman/plugin-sdk";

/**
 * What became of a request of a long conversation: it was cut anew since nothing of it was cached ("cold") or since that
 * pays; cut where it was before; left whole since a cut would cost more than it saves, since nobody could count what it
 * saves, or since it may not be touched; and, of whatever length, one that is no conversation that can be cut.
 */
const OUTCOMES = ["cold", "pays", "repeated", "dear", "uncounted", "untouched", "unreadable"] as const;
export type HistoryOutcome = (typeof OUTCOMES)[number];

export class HistoryCounts {
  readonly #counts = new Map<HistoryOutcome, number>();

  count(outcome: HistoryOutcome): void {
    this.#counts.set(outcome, this.of(outcome) + 1);
  }
  of(outcome: HistoryOutcome): number {
    return this.#counts.get(outcome) ?? 0;
  }
  metric(): MetricSource {
    return {
      name: "history",
      render: () =>
        renderMetric({
          name: "tokenman_history_requests_total",
          type: "counter",
          help: "Requests of long conversations by what was done about their oldest turns.",
          samples: OUTCOMES.map((outcome) => ({ labels: { outcome }, value: this.of(outcome) })),
        }),
    };
  }
}

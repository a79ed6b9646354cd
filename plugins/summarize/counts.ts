import { type MetricSource, renderMetric } from "@tokenman/plugin-sdk";

/**
 * What became of a request of a long conversation: a summary is sent anew since nothing of it was cached ("cold") or since
 * that pays; as it was before ("repeated"); one is there, and waits for such an occasion ("waits"). None is made since it
 * would cost more than it saves ("dear"), or there is too little to summarise; or the conversation may not be touched,
 * was cut by another plugin, or cannot be.
 */
const OUTCOMES = [
  "cold",
  "pays",
  "repeated",
  "waits",
  "dear",
  "small",
  "untouched",
  "cut",
  "unreadable",
] as const;
export type SummaryOutcome = (typeof OUTCOMES)[number];

/** What became of a summary that was asked for. */
const CALLS = ["made", "failed", "longer"] as const;
export type CallOutcome = (typeof CALLS)[number];

export class SummaryCounts {
  readonly #counts = new Map<SummaryOutcome | CallOutcome, number>();

  count(outcome: SummaryOutcome | CallOutcome): void {
    this.#counts.set(outcome, (this.#counts.get(outcome) ?? 0) + 1);
  }
  /** `underWay`: how many summaries are being made now. */
  metric(underWay: () => number): MetricSource {
    const samples = (outcomes: readonly (SummaryOutcome | CallOutcome)[]) =>
      outcomes.map((outcome) => ({ labels: { outcome }, value: this.#counts.get(outcome) ?? 0 }));
    return {
      name: "summaries",
      render: () =>
        renderMetric({
          name: "tokenman_summary_requests_total",
          type: "counter",
          help: "Requests of long conversations by what was done about their older part.",
          samples: samples(OUTCOMES),
        }) +
        renderMetric({
          name: "tokenman_summaries_total",
          type: "counter",
          help: "Summaries that were asked for, by what became of them.",
          samples: samples(CALLS),
        }) +
        renderMetric({
          name: "tokenman_summaries_under_way",
          type: "gauge",
          help: "Summaries that are being made.",
          samples: [{ labels: {}, value: underWay() }],
        }),
    };
  }
}

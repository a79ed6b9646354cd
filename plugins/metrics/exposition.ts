import { type HostInfo, type MetricFamily, type MetricSample, renderMetric } from "@tokenman/plugin-sdk";
import type { LoopDelay } from "./loop-delay.ts";
import type { Meter } from "./meter.ts";
import type { Count, Series } from "./series.ts";

const NANO = 1e9;

interface Exposed {
  readonly meter: Meter;
  readonly host: HostInfo;
  readonly delay: LoopDelay;
  /** Whether somebody works out what is spent; else nothing is said of money spent. */
  readonly isBilled: boolean;
}

/** The metrics of TokenMan itself, in Prometheus' text format. */
export function exposition(exposed: Exposed): string {
  return families(exposed).map(renderMetric).join("");
}

function families({ meter, host, delay, isBilled }: Exposed): MetricFamily[] {
  const { startedAt, activeExchanges, generation, refusals } = host.status();
  const saved = sum(meter.saved);
  const lost = sum(meter.lost);
  const net = saved - lost;
  const lookups = meter.cacheHits + meter.cacheMisses;
  const { window } = delay;
  const delays: MetricFamily[] =
    window === undefined
      ? []
      : [
          gauge(
            "event_loop_delay_p50_seconds",
            "Delay of the event loop, median of the last window.",
            window.p50,
          ),
          gauge(
            "event_loop_delay_p99_seconds",
            "Delay of the event loop, 99th percentile of the last window.",
            window.p99,
          ),
          gauge(
            "event_loop_delay_max_seconds",
            "Delay of the event loop, longest of the last window.",
            window.max,
          ),
        ];
  return [
    counter("requests_total", "Requests that ended, in whatever way.", meter.requests),
    counter(
      "tokens_in_total",
      "Input tokens, those read from and written to the provider's cache included.",
      meter.tokensIn,
    ),
    counter("tokens_out_total", "Output tokens, reasoning included.", meter.tokensOut),
    counter("tokens_saved_total", "Tokens that did not have to be sent or generated.", meter.tokensSaved),
    ...(isBilled ? spent(meter) : []),
    counter("savings_usd_total", "US dollars saved, before losses.", saved / NANO),
    counter("losses_usd_total", "US dollars lost by what was meant to save.", lost / NANO),
    family(
      "kind_savings_usd_total",
      "counter",
      "US dollars saved, before losses, by cause.",
      dollars(meter.saved),
    ),
    family("kind_losses_usd_total", "counter", "US dollars lost, by cause.", dollars(meter.lost)),
    gauge("savings_net_usd", "US dollars saved, less losses.", net / NANO),
    ...(isBilled
      ? [
          gauge(
            "savings_percent",
            "Net savings as a share of what it would have cost without them.",
            percent(net, meter.cost + net),
          ),
        ]
      : []),
    counter("cache_hits_total", "Requests answered from the response cache.", meter.cacheHits),
    counter("cache_misses_total", "Requests that the response cache had no answer to.", meter.cacheMisses),
    counter(
      "cache_coalesced_total",
      "Requests that shared the answer to an identical one under way.",
      meter.cacheCoalesced,
    ),
    gauge(
      "cache_hit_rate",
      "Hits as a share of hits and misses, 0 to 100.",
      percent(meter.cacheHits, lookups),
    ),
    gauge("active_requests", "Requests under way.", activeExchanges),
    gauge("uptime_seconds", "Seconds since the start.", Math.max(0, Date.now() - startedAt) / 1000),
    family(
      "errors_total",
      "counter",
      "Requests that failed or were answered with an error.",
      counts(meter.errors),
    ),
    family(
      "refusals_total",
      "counter",
      "Requests that were refused before they became an exchange: a wrong Host, Origin or token.",
      Object.entries(refusals).map(([code, value]) => ({ labels: { code }, value })),
    ),
    family(
      "request_duration_seconds",
      "histogram",
      "From the request's head to the reply's end.",
      histograms(meter.durations),
    ),
    family(
      "time_to_first_token_seconds",
      "histogram",
      "From the request's head to the first byte of a streamed reply.",
      histograms(meter.firstTokens),
    ),
    family(
      "overhead_seconds",
      "histogram",
      "Time to the first byte less the provider's, upload included.",
      meter.overhead.samples(),
    ),
    family(
      "provider_requests_total",
      "counter",
      "Attempts by how they ended: a status, error or cancelled.",
      counts(meter.attempts),
    ),
    family(
      "middleware_duration_seconds",
      "histogram",
      "Time in a plugin's hook, waiting included.",
      histograms(meter.plugins),
    ),
    family("plugin_failures_total", "counter", "Failures of a plugin's hooks.", growths(meter.failures)),
    family("reloads_total", "counter", "Reloads by result.", [
      { labels: { result: "ok" }, value: meter.reloads.ok },
      { labels: { result: "failed" }, value: meter.reloads.failed },
    ]),
    gauge("generation", "The generation that serves.", generation),
    counter("ledger_lost_rows_total", "Rows of the ledger that could not be written.", meter.lostRows.total),
    ...delays,
  ];
}

function spent({ cost, costEstimated, unpriced }: Meter): MetricFamily[] {
  return [
    counter("cost_usd_total", "Cost in US dollars, of what has a known price.", cost / NANO),
    counter(
      "estimated_cost_usd_total",
      "The part of the cost that rests on estimated tokens.",
      costEstimated / NANO,
    ),
    counter(
      "unpriced_requests_total",
      "Requests with tokens of unknown price: they are not in the cost.",
      unpriced,
    ),
  ];
}

function family(
  name: string,
  type: MetricFamily["type"],
  help: string,
  samples: Iterable<MetricSample>,
): MetricFamily {
  return { name: `tokenman_${name}`, type, help, samples };
}
function counter(name: string, help: string, value: number): MetricFamily {
  return family(name, "counter", help, [{ value }]);
}
function gauge(name: string, help: string, value: number): MetricFamily {
  return family(name, "gauge", help, [{ value }]);
}

function* counts(series: Series<Count>): Generator<MetricSample> {
  for (const [labels, { value }] of series.entries()) yield { labels, value };
}
function* dollars(series: Series<Count>): Generator<MetricSample> {
  for (const { labels, value } of counts(series)) yield { labels: labels ?? {}, value: value / NANO };
}
function* growths(series: Meter["failures"]): Generator<MetricSample> {
  for (const [labels, { total }] of series.entries()) yield { labels, value: total };
}
function* histograms(series: Meter["durations"]): Generator<MetricSample> {
  for (const [labels, histogram] of series.entries()) yield* histogram.samples(labels);
}

function sum(series: Series<Count>): number {
  let total = 0;
  for (const [, { value }] of series.entries()) total += value;
  return total;
}
function percent(part: number, whole: number): number {
  return whole <= 0 ? 0 : (part / whole) * 100;
}

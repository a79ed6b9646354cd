/** One measured value of a metric. */
export interface MetricSample {
  /** Names are `[a-z_]+`; values may be any text. Keep the number of different values bounded. */
  readonly labels?: Readonly<Record<string, string>>;
  readonly value: number;
  /** Of a histogram's or summary's parts: "_bucket", "_sum", "_count". */
  readonly suffix?: string;
}

/** A metric with all of its samples. A counter's name ends in `_total`, and its values never fall. */
export interface MetricFamily {
  readonly name: string;
  readonly type: "counter" | "gauge" | "histogram" | "summary";
  readonly help: string;
  readonly samples: Iterable<MetricSample>;
}

/**
 * A metric in Prometheus' text format, as a {@link MetricSource} gives it; whatever is in the labels is escaped. The
 * format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format.
 */
export function renderMetric({ name, type, help, samples }: MetricFamily): string {
  let text = `# HELP ${name} ${help.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")}\n# TYPE ${name} ${type}\n`;
  for (const { suffix = "", labels, value } of samples)
    text += `${name}${suffix}${labelsText(labels)} ${numberText(value)}\n`;
  return text;
}

function labelsText(labels: MetricSample["labels"]): string {
  if (labels === undefined) return "";
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

/** Prometheus refuses a whole scrape over one label that is not UTF-8, which a lone surrogate cannot be. */
function escaped(value: string): string {
  return value.toWellFormed().replaceAll("\\", "\\\\").replaceAll("\n", "\\n").replaceAll('"', '\\"');
}

function numberText(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return "+Inf";
  return value === Number.NEGATIVE_INFINITY ? "-Inf" : String(value);
}

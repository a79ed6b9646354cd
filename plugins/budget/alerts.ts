import { type Alert, type BudgetWindow, formatUsd, type HostInfo, type Logger } from "@tokenman/plugin-sdk";

const WEBHOOK_MS = 5_000;
const NANOS_PER_USD = 1_000_000_000;

/** Tells people that a budget is nearly spent: in the log, to whoever listens, and to a webhook. Never waits for them. */
export class Alerts {
  readonly #log: Logger;
  readonly #registry: HostInfo["registry"];
  readonly #webhook: string;
  readonly #posting = new Set<Promise<void>>();

  constructor(options: {
    readonly log: Logger;
    readonly registry: HostInfo["registry"];
    readonly webhook: string;
  }) {
    this.#log = options.log;
    this.#registry = options.registry;
    this.#webhook = options.webhook;
  }

  passed(window: BudgetWindow, percent: number, spentNanoUsd: number): void {
    const { scope, period, limitNanoUsd } = window;
    const message = `${percent} % of the ${period} budget (${scope}) of ${formatUsd(limitNanoUsd)} are spent: ${formatUsd(spentNanoUsd)}`;
    this.#raise(window, message, { percent, spent: spentNanoUsd / NANOS_PER_USD });
  }
  refused(window: BudgetWindow, spentNanoUsd: number): void {
    const { scope, period, limitNanoUsd, to } = window;
    const message = `the ${period} budget (${scope}) of ${formatUsd(limitNanoUsd)} has no room left: requests are refused, until ${timeOf(to)} at the latest`;
    this.#raise(window, message, { percent: 100, spent: spentNanoUsd / NANOS_PER_USD, refusing: true });
  }
  /** Resolves when what is being posted has arrived, or was given up. */
  async close(): Promise<void> {
    await Promise.all(this.#posting);
  }

  #raise({ scope, period, limitNanoUsd, to }: BudgetWindow, message: string, more: Alert["facts"]): void {
    const facts = { scope, period, limit: limitNanoUsd / NANOS_PER_USD, resets_at: timeOf(to), ...more };
    const alert: Alert = Object.freeze({
      kind: "budget",
      at: Date.now(),
      message,
      facts: Object.freeze(facts),
    });
    this.#log.warn(facts, message);
    for (const sink of this.#registry.all("alertSink")) {
      try {
        sink.alert(alert);
      } catch (cause) {
        this.#log.warn({ err: cause, sink: sink.name }, "an alert was not taken");
      }
    }
    if (this.#webhook === "") return;
    const posting = this.#post(alert).finally(() => this.#posting.delete(posting));
    this.#posting.add(posting);
  }
  async #post(alert: Alert): Promise<void> {
    try {
      const reply = await fetch(this.#webhook, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(alert),
        redirect: "error",
        signal: AbortSignal.timeout(WEBHOOK_MS),
      });
      await reply.body?.cancel();
      if (!reply.ok) this.#log.warn({ status: reply.status }, "the budget's webhook refused an alert");
    } catch (cause) {
      // The address may be a secret, and errors of fetch have it in their cause's text at times.
      const said = cause instanceof Error ? cause.name : "unknown";
      this.#log.warn({ error: said }, "the budget's webhook was not reached");
    }
  }
}

export function timeOf(ms: number): string {
  return new Date(ms).toISOString();
}

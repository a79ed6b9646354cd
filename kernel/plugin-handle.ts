import type { Logger } from "@tokenman/plugin-sdk";

/** Failures in a row after which a plugin is left out until the next generation. */
export const QUARANTINE_AFTER = 10;

/** Run-time identity of a loaded plugin, shared by all pipelines of its generation. */
export class PluginHandle {
  readonly name: string;
  readonly onError: "open" | "closed";
  readonly hookMs: number;
  readonly log: Logger;
  /** All failures of this generation's taps and transforms. */
  failures = 0;
  /** Why it is left out; undefined while it is in service. */
  quarantined: string | undefined;
  #inARow = 0;

  constructor(options: {
    name: string;
    onError?: "open" | "closed" | undefined;
    hookMs?: number | undefined;
    log: Logger;
  }) {
    this.name = options.name;
    this.onError = options.onError ?? "open";
    this.hookMs = options.hookMs ?? 5_000;
    this.log = options.log;
  }

  succeeded(): void {
    this.#inARow = 0;
  }
  /** Counts and logs a failure in `where` (a hook's name). */
  failed(where: string, cause: unknown, exchangeId?: string): void {
    this.failures++;
    this.#inARow++;
    this.log.error(
      { plugin: this.name, hook: where, exchange: exchangeId, err: cause, policy: this.onError },
      "plugin failed",
    );
    if (this.#inARow >= QUARANTINE_AFTER && this.quarantined === undefined) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      this.quarantined = `${this.#inARow} failures in a row, the last in ${where}: ${reason}`;
      this.log.error(
        { plugin: this.name, reason: this.quarantined },
        "plugin quarantined until the next reload",
      );
    }
  }
}

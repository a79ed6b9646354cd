import type { Logger } from "@tokenman/plugin-sdk";

/** Failures in a row, of the same kind, after which a plugin is left out until the next generation. */
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
  /** Failures in a row by where they happened: that its `settled` tap works says nothing about its `request` tap. */
  #rows: Map<string, number> | undefined;

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

  succeeded(where: string): void {
    this.#rows?.delete(where);
  }
  /** Counts and logs a failure in `where` (a hook's name). Never throws, whatever was thrown. */
  failed(where: string, cause: unknown, exchangeId?: string): void {
    this.failures++;
    this.#rows ??= new Map();
    const row = (this.#rows.get(where) ?? 0) + 1;
    this.#rows.set(where, row);
    const facts = { plugin: this.name, hook: where, exchange: exchangeId, policy: this.onError };
    try {
      this.log.error({ ...facts, err: cause }, "plugin failed");
    } catch {
      // An error whose properties throw cannot be written out.
      this.log.error({ ...facts, err: sayCause(cause) }, "plugin failed");
    }
    if (row < QUARANTINE_AFTER || this.quarantined !== undefined) return;
    this.quarantined = `${row} failures in a row, the last in ${where}: ${sayCause(cause)}`;
    this.log.error(
      { plugin: this.name, reason: this.quarantined },
      "plugin quarantined until the next reload",
    );
  }
}

/** What was thrown, in words. Never throws: anything may have been thrown, even what has no string form. */
export function sayCause(cause: unknown): string {
  try {
    return cause instanceof Error ? String(cause.message) : String(cause);
  } catch {
    return "something that has no text";
  }
}

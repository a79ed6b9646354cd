import type { ErrorCode, Logger } from "@tokenman/plugin-sdk";

/** At most one line is logged in that time, however many are refused: a flood must not flood the log. */
const QUIET_MS = 1_000;

/** Who was refused, for the log. */
export interface Refused {
  readonly port: string;
  readonly code: ErrorCode;
  readonly remoteAddress: string;
  /** The header that was at fault, cut. */
  readonly host?: string | undefined;
  readonly origin?: string | undefined;
}

/** What was refused at the door, where no plugin sees it: counted by code since the start, and logged. */
export class Refusals {
  readonly #log: Logger;
  readonly #counts: Partial<Record<ErrorCode, number>> = {};
  /** Runs for one line's time. */
  #quiet: NodeJS.Timeout | undefined;
  /** What no line has told yet, and the last of it. */
  #unsaid: Partial<Record<ErrorCode, number>> = {};
  #last: Refused | undefined;

  constructor(log: Logger) {
    this.#log = log;
  }
  get counts(): Readonly<Partial<Record<ErrorCode, number>>> {
    return { ...this.#counts };
  }
  add(refused: Refused): void {
    for (const counts of [this.#counts, this.#unsaid]) counts[refused.code] = (counts[refused.code] ?? 0) + 1;
    this.#last = refused;
    if (this.#quiet === undefined) this.#say();
  }
  /** Says what is not said yet. */
  close(): void {
    clearTimeout(this.#quiet);
    this.#say();
    clearTimeout(this.#quiet);
  }

  #say(): void {
    this.#quiet = undefined;
    if (this.#last === undefined) return;
    const codes = this.#unsaid;
    const requests = Object.values(codes).reduce((sum, count) => sum + count, 0);
    this.#log.warn({ ...this.#last, requests, codes }, "refused at the door");
    this.#unsaid = {};
    this.#last = undefined;
    this.#quiet = setTimeout(() => this.#say(), QUIET_MS).unref();
  }
}

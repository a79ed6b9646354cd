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
  /** While one line's time runs: how many came since, in all and by code, and the last of them. */
  #quiet: NodeJS.Timeout | undefined;
  #unsaid = 0;
  #unsaidCounts: Partial<Record<ErrorCode, number>> = {};
  #last: Refused | undefined;

  constructor(log: Logger) {
    this.#log = log;
  }
  get counts(): Readonly<Partial<Record<ErrorCode, number>>> {
    return { ...this.#counts };
  }
  add(refused: Refused): void {
    this.#counts[refused.code] = (this.#counts[refused.code] ?? 0) + 1;
    this.#unsaid++;
    this.#unsaidCounts[refused.code] = (this.#unsaidCounts[refused.code] ?? 0) + 1;
    this.#last = refused;
    if (this.#quiet === undefined) this.#say();
  }
  /** Says what is not said yet. */
  close(): void {
    clearTimeout(this.#quiet);
    if (this.#unsaid > 0) this.#say();
    clearTimeout(this.#quiet);
  }

  #say(): void {
    const facts = { ...this.#last, requests: this.#unsaid, codes: this.#unsaidCounts };
    this.#log.warn(facts, "refused at the door");
    this.#unsaid = 0;
    this.#unsaidCounts = {};
    this.#quiet = setTimeout(() => {
      this.#quiet = undefined;
      if (this.#unsaid > 0) this.#say();
    }, QUIET_MS).unref();
  }
}

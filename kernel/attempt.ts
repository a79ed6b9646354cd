import {
  type Attempt,
  type AttemptResult,
  type BodyEnd,
  type Candidate,
  type EventVerdict,
  type JsonPatch,
  type Provider,
  type RawHeaders,
  type Usage,
  type UsageReader,
  usageFault,
} from "@tokenman/plugin-sdk";
import { Cancellation } from "./cancellation.ts";
import type { Edits } from "./edits.ts";
import type { ExchangeState } from "./exchange.ts";
import { Slots } from "./slots.ts";

/** What `rollback` restores when a plugin failed in its beforeUpstream hook. */
export interface AttemptMark {
  readonly headers: RawHeaders;
  readonly edits: number;
}

/** One try against one provider. */
export class AttemptState extends Slots implements Attempt {
  readonly number: number;
  readonly candidate: Candidate;
  readonly startedAt = Date.now();
  headers: RawHeaders;
  status: number | undefined;
  replyHeaders: RawHeaders | undefined;
  headMs: number | undefined;
  firstByteMs: number | undefined;
  result: AttemptResult | undefined;
  reader: UsageReader | undefined;
  streamError: Extract<EventVerdict, { kind: "error" }> | undefined;
  failedFirst = false;
  /** A stream's regular end was seen; undefined where nobody looks. */
  terminal: boolean | undefined;
  /** As the exchange's, of the hook that runs for the attempt alone. */
  tappedAt = 0;
  readonly #exchange: ExchangeState;
  readonly #began = performance.now();
  #endedMs = -1;
  readonly cancellation = new Cancellation();
  #edits: Edits | undefined;
  #usage: Usage | undefined;

  constructor(exchange: ExchangeState, number: number, candidate: Candidate, headers: RawHeaders) {
    super();
    this.#exchange = exchange;
    this.number = number;
    this.candidate = candidate;
    this.headers = headers;
  }
  get provider(): Provider {
    return this.candidate.provider;
  }
  get signal(): AbortSignal {
    return this.cancellation.signal;
  }
  get usage(): Usage | undefined {
    if (this.#usage !== undefined) return this.#usage;
    const usage = this.reader?.usage();
    if (usage === undefined || usageFault(usage) !== undefined) return undefined;
    // Several ask once it has ended, and then it stays as it is.
    if (usage.complete && this.result !== undefined) this.#usage = usage;
    return usage;
  }
  get usageFault(): string | undefined {
    const usage = this.reader?.usage();
    return usage === undefined ? undefined : usageFault(usage);
  }
  get edits(): Edits | undefined {
    return this.#edits;
  }
  patch(patches: readonly JsonPatch[]): void {
    const { plugin } = this.#exchange.callOn("beforeUpstream");
    // Called off while the hook runs: that is not its fault, and of no consequence.
    if (this.result !== undefined) return;
    this.#exchange.content.assertUnsealed(patches);
    this.#edits ??= this.#exchange.content.editsOver();
    this.#edits.patch(patches, plugin);
  }
  mark(): AttemptMark {
    return { headers: this.headers, edits: this.#edits?.count ?? 0 };
  }
  rollback(mark: AttemptMark): void {
    this.headers = mark.headers;
    this.#edits?.rollback(mark.edits);
  }
  /** Milliseconds since the start; monotonic. */
  elapsedMs(): number {
    return performance.now() - this.#began;
  }
  get durationMs(): number {
    return this.#endedMs < 0 ? this.elapsedMs() : this.#endedMs;
  }
  /** Nobody wants this attempt's reply any more. */
  cancel(): void {
    this.cancellation.cancel();
  }
  headCame(status: number, headers: RawHeaders): void {
    this.status = status;
    this.replyHeaders = headers;
    this.headMs = this.elapsedMs();
  }
  /** Ends it once; `lifecycle: attemptEnd` follows. */
  end(result: AttemptResult): void {
    if (this.result !== undefined) return;
    this.result = result;
    this.#endedMs = this.elapsedMs();
    this.#exchange.attemptEnded(this);
  }
  bodyEnded(end: BodyEnd): void {
    // A provider in this process waits for its signal; over HTTP this is known already.
    if (end !== "complete") this.cancel();
    this.end({ kind: "reply", status: this.status ?? 0, body: end });
  }
}

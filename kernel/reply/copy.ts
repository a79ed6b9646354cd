import { type BodyEnd, type SseEvent, SseSplitter } from "@tokenman/plugin-sdk";
import { isKnownCoding, StreamDecoder } from "./codec.ts";
import { observerFailed, type Step } from "./steps.ts";

/** How far the observers' decoder may lag behind the client, who is never slowed by it. */
const MAX_COPY_BACKLOG_BYTES = 32 * 1024 * 1024;

/** Feeds observers a decoded copy. Its failures and its pace never touch the client's bytes. */
export class Copy {
  readonly #steps: readonly Extract<Step, { kind: "observe" }>[];
  readonly #maxBytes: number;
  readonly #splitter: SseSplitter | undefined;
  readonly #coded: boolean;
  readonly #wantsData: boolean;
  #decoder: StreamDecoder | undefined;
  #bytes = 0;
  #truncated = false;
  /** Called once all that was decoded has been seen. */
  #seen: (() => void) | undefined;

  constructor(steps: readonly Step[], coding: string | undefined, streaming: boolean, maxBytes: number) {
    this.#steps = steps.filter((step) => step.kind === "observe");
    this.#maxBytes = maxBytes;
    this.#coded = coding !== undefined;
    this.#wantsData = this.#steps.some((step) => step.observer.data !== undefined);
    if (streaming && this.#steps.some((step) => step.observer.event !== undefined))
      this.#splitter = new SseSplitter();
    if (coding === undefined) return;
    if (!isKnownCoding(coding)) {
      this.#truncated = true;
      return;
    }
    this.#decoder = new StreamDecoder(coding, {
      data: (chunk) => this.#decoded(chunk),
      drain() {},
      end: () => this.#seen?.(),
      fail: () => this.#stop(),
    });
  }
  push(chunk: Buffer): void {
    if (this.#truncated) return;
    if (!this.#coded) this.#decoded(chunk);
    else if (this.#decoder!.backlogBytes > MAX_COPY_BACKLOG_BYTES) this.#stop();
    else this.#decoder!.write(chunk);
  }
  /** The copy ends here; the client's bytes go on. */
  #stop(): void {
    this.#truncated = true;
    this.#decoder?.destroy();
    this.#decoder = undefined;
    this.#seen?.();
  }
  finish(end: BodyEnd, told: () => void): void {
    const tell = (): void => {
      this.#splitter?.flush(this.#event);
      for (const step of this.#steps) tellEnd(step, end, this.#truncated);
      told();
    };
    if (this.#decoder === undefined) {
      tell();
      return;
    }
    this.#seen = () => {
      if (this.#seen === undefined) return;
      this.#seen = undefined;
      tell();
    };
    if (end === "complete") this.#decoder.end();
    else this.#decoder.cut(this.#seen);
  }
  #decoded(chunk: Buffer): void {
    if (this.#truncated) return;
    this.#bytes += chunk.length;
    if (this.#bytes > this.#maxBytes) {
      this.#stop();
      return;
    }
    if (this.#wantsData) {
      for (const step of this.#steps) {
        if (step.bypassed) continue;
        try {
          step.observer.data?.(chunk);
        } catch (cause) {
          observerFailed(step, cause);
        }
      }
    }
    this.#splitter?.push(chunk, this.#event);
  }
  readonly #event = (event: SseEvent): void => {
    for (const step of this.#steps) {
      if (step.bypassed) continue;
      try {
        step.observer.event?.(event);
      } catch (cause) {
        observerFailed(step, cause);
      }
    }
  };
}

/** Tells an observer, once, how its body ended. */
export function tellEnd(step: Extract<Step, { kind: "observe" }>, end: BodyEnd, truncated: boolean): void {
  if (step.bypassed) return;
  try {
    step.observer.end?.(end, truncated);
  } catch (cause) {
    observerFailed(step, cause);
  }
}

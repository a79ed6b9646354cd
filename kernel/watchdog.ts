/**
 * A time-out that is touched at every sign of life: one timer a call, and a touch costs a store. Own rather than the
 * HTTP client's time-outs, which make two timers and two weak references a request where the time to the head and the
 * time between bytes differ; they survive for half a second and with them, measured, half of all garbage.
 */
export class Watchdog {
  readonly #expired: () => void;
  #timer: NodeJS.Timeout | undefined;
  #ms = 0;
  #held = false;

  constructor(expired: () => void) {
    this.#expired = expired;
  }
  /** Begins to count anew; 0 never expires. */
  watch(ms: number): void {
    this.#held = false;
    if (this.#timer !== undefined && this.#ms === ms) {
      this.#timer.refresh();
      return;
    }
    clearTimeout(this.#timer);
    this.#ms = ms;
    this.#timer = ms > 0 ? setTimeout(() => this.#fire(), ms) : undefined;
  }
  touch(): void {
    this.#timer?.refresh();
  }
  /** Whoever waits is not the one to blame: time does not count until the next `touch` or `go`. */
  hold(): void {
    this.#held = true;
  }
  go(): void {
    if (!this.#held) return;
    this.#held = false;
    this.#timer?.refresh();
  }
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
  #fire(): void {
    if (this.#held) this.#timer?.refresh();
    else this.#expired();
  }
}

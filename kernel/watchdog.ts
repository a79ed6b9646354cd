/** Whoever is to be told that nothing happened for too long. */
export interface Watched {
  expired(): void;
}

/**
 * A time-out that is armed for one request after the other of a connection, and touched at every sign of life: its timer
 * is made once, and to arm, touch or disarm it costs next to nothing. Own rather than the HTTP client's time-outs, which
 * make two timers and two weak references a request where the time to the head and the time between bytes differ.
 */
export class Watchdog {
  #watched: Watched | undefined;
  #timer: NodeJS.Timeout | undefined;
  #ms = 0;
  #held = false;

  /** Counts `ms` from now on; 0 never expires. */
  arm(ms: number, watched: Watched): void {
    this.#held = false;
    this.#watched = ms > 0 ? watched : undefined;
    if (ms <= 0) return;
    if (this.#timer !== undefined && this.#ms === ms) {
      this.#timer.refresh();
      return;
    }
    clearTimeout(this.#timer);
    this.#ms = ms;
    // Not a reason for the process to go on: what is watched holds a socket.
    this.#timer = setTimeout(() => this.#fire(), ms).unref();
  }
  touch(): void {
    this.#timer?.refresh();
  }
  /** Whoever waits is not the one to blame: time does not count until `go`. */
  hold(): void {
    this.#held = true;
  }
  go(): void {
    if (!this.#held) return;
    this.#held = false;
    this.#timer?.refresh();
  }
  disarm(): void {
    this.#watched = undefined;
  }
  /** Gives the timer back: one that is only disarmed would be kept, with all it refers to, until its time is over. */
  stop(): void {
    this.#watched = undefined;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
  #fire(): void {
    const watched = this.#watched;
    if (watched === undefined) this.#timer = undefined;
    else if (this.#held) this.#timer?.refresh();
    else {
      this.#watched = undefined;
      watched.expired();
    }
  }
}

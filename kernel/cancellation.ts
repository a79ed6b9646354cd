/** Given as the reason of every AbortSignal: making a DOMException for each would cost a stack trace. */
const REASON = Object.freeze(
  Object.assign(new Error("nobody wants the answer any more"), { name: "AbortError", stack: "" }),
);

/**
 * Tells that nobody wants a result any more. An AbortController costs several microseconds and much garbage, so one is
 * made only for a plugin that asks for the signal; the kernel listens by callback.
 */
export class Cancellation {
  #cancelled = false;
  #listeners: (() => void)[] | undefined;
  #controller: AbortController | undefined;

  get cancelled(): boolean {
    return this.#cancelled;
  }
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#cancelled) this.#controller.abort(REASON);
    }
    return this.#controller.signal;
  }
  /** Calls back once: at the cancellation, or now where it came already. */
  onCancel(listener: () => void): void {
    if (this.#cancelled) listener();
    else if (this.#listeners === undefined) this.#listeners = [listener];
    else this.#listeners.push(listener);
  }
  cancel(): void {
    if (this.#cancelled) return;
    this.#cancelled = true;
    const listeners = this.#listeners;
    this.#listeners = undefined;
    if (listeners !== undefined) for (const listener of listeners) listener();
    this.#controller?.abort(REASON);
  }
}

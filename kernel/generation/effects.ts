import { type Logger, TokenmanError } from "@tokenman/plugin-sdk";
import { within } from "./deadline.ts";

/** How long one resource may take to go; then the next is disposed of, and the log says so. */
const DISPOSE_MS = 5_000;

interface Effect {
  readonly label: string;
  readonly dispose: () => unknown;
}

/**
 * The resources of one plugin in one generation. They go in the reverse of the order in which they came. After
 * `dispose` nothing can be acquired any more, and what was still on its way when it was called goes as it arrives.
 */
export class EffectStack {
  readonly #plugin: string;
  readonly #log: Logger;
  readonly #closing = new AbortController();
  readonly #effects: Effect[] = [];
  #disposed: Promise<void> | undefined;

  constructor(plugin: string, log: Logger) {
    this.#plugin = plugin;
    this.#log = log;
  }

  /** Fires when `dispose` begins. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /** Rejects as `acquire` does, and with TM_PLUGIN_SETUP once the plugin was torn down. */
  async acquire<T>(
    label: string,
    acquire: () => T | Promise<T>,
    dispose: (value: T) => unknown = disposeNatively,
  ): Promise<T> {
    if (this.closing.aborted) throw this.#gone(label);
    const value = await acquire();
    const effect: Effect = { label, dispose: () => dispose(value) };
    if (this.closing.aborted) {
      await this.#end(effect);
      throw this.#gone(label);
    }
    this.#effects.push(effect);
    return value;
  }

  /** Runs `task` every `intervalMs`, counted from the end of the last run. Its disposal waits for a run to end. */
  every(label: string, intervalMs: number, task: () => unknown): void {
    if (this.closing.aborted) throw this.#gone(label);
    if (!(intervalMs > 0))
      throw new RangeError(`every("${label}"): expected an interval above 0 ms, found ${intervalMs}`);
    let running: Promise<void> | undefined;
    let timer: NodeJS.Timeout;
    const run = async () => {
      try {
        await task();
      } catch (err) {
        this.#log.error(
          { plugin: this.#plugin, task: label, err },
          "a repeated task failed; it will run again",
        );
      }
      running = undefined;
      if (!this.closing.aborted) schedule();
    };
    const schedule = () => {
      timer = setTimeout(() => {
        running = run();
      }, intervalMs);
      // The task alone is no reason for the process to stay.
      timer.unref();
    };
    schedule();
    const dispose = () => {
      clearTimeout(timer);
      return running;
    };
    this.#effects.push({ label, dispose });
  }

  /** Ends everything, last in first out. Resolves when all is done; never rejects. */
  dispose(): Promise<void> {
    this.#disposed ??= this.#disposeAll();
    return this.#disposed;
  }

  async #disposeAll(): Promise<void> {
    this.#closing.abort();
    for (let effect = this.#effects.pop(); effect !== undefined; effect = this.#effects.pop())
      await this.#end(effect);
  }

  async #end({ label, dispose }: Effect): Promise<void> {
    try {
      // Called in a then, so that a synchronous throw is a rejection too.
      const ended = Promise.resolve().then(dispose);
      await within(DISPOSE_MS, ended, () => new Error(`it took over ${DISPOSE_MS} ms`));
    } catch (err) {
      this.#log.error({ plugin: this.#plugin, resource: label, err }, "a resource could not be disposed of");
    }
  }

  #gone(label: string): TokenmanError {
    const message = `plugin "${this.#plugin}" asked for "${label}" after it was torn down`;
    return new TokenmanError("TM_PLUGIN_SETUP", message, { plugin: this.#plugin });
  }
}

/** Without a `dispose`, a value that knows how to dispose of itself does. */
function disposeNatively(value: unknown): unknown {
  if ((typeof value !== "object" && typeof value !== "function") || value === null) return;
  const own = value as Partial<AsyncDisposable & Disposable>;
  return Symbol.asyncDispose in own ? own[Symbol.asyncDispose]?.() : own[Symbol.dispose]?.();
}

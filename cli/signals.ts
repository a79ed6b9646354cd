import { constants } from "node:os";
import { isatty } from "node:tty";
import { ERRORS, type Logger, TokenmanError } from "@tokenman/plugin-sdk";
import { describeFailure } from "./failure.ts";
import type { Successors } from "./line.ts";

/** The instance that signals act on. */
export interface Instance {
  reload(reason: string): Promise<unknown>;
  /** Hands over to a new process, or serves on. */
  restart(): Promise<unknown>;
  /** Resolves when all is closed. */
  shutdown(options: { readonly drainMs: number; readonly reason: string }): Promise<void>;
  /** The generation that serves knows its plugins' sources. */
  readonly generation: { ownerOf(error: unknown): { readonly name: string } | undefined };
  /** Breaks off what is in flight, so that a shutdown that waits for it ends. */
  hurry(): void;
}

export interface SignalOptions {
  readonly log: Logger;
  readonly drainMs: number;
  /** The last thing to do in a process that cannot go on. Synchronous. */
  readonly abandon: () => void;
}

/** How long the second signal's flush may take. */
const FLUSH_MS = 2_000;
/** How long requests in flight get after an uncaught exception, and the whole end that follows from one. */
const DYING_DRAIN_MS = 5_000;
const DYING_MS = 15_000;

/**
 * Lets signals and stray errors act on an instance: SIGTERM and SIGINT drain and then end it, a second one ends it at
 * once, SIGHUP reloads, SIGUSR2 hands over to a new process. An uncaught exception ends the process after a short drain; an unhandled rejection is logged.
 */
export class Signals {
  /** The exit code, when the instance has ended: 0 after a drain, 128 + the signal's number after a second signal. */
  readonly ended: Promise<number>;
  readonly #options: SignalOptions;
  readonly #end: (code: number) => void;
  readonly #hadTerminal = isatty(2);
  #instance: Instance | undefined;
  #stopping = false;
  /** An exception was not caught. */
  #dying = false;
  /** The exit code that a second signal asks for. */
  #hurried: number | undefined;
  #successors: Successors | undefined;

  constructor(options: SignalOptions) {
    const { promise, resolve } = Promise.withResolvers<number>();
    this.ended = promise;
    this.#end = resolve;
    this.#options = options;
    for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => this.stop(signal));
    process.on("SIGHUP", () => this.#hangUp());
    process.on("SIGUSR2", () => this.#restart());
    process.on("uncaughtException", (error) => this.#die(error));
    process.on("unhandledRejection", (reason) => this.#stray(reason));
    // Whoever read our output may leave; that is no reason to end.
    for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});
  }

  /** From now on there is something to drain. Before, a signal just ends the process. */
  watch(instance: Instance): void {
    this.#instance = instance;
  }
  /** From now on other processes are the instance: signals are passed on, and this process ends as the last of them. */
  passOn(successors: Successors): void {
    this.#successors = successors;
  }
  /** There is nothing left to do here. */
  done(): void {
    this.#finish(this.#hurried ?? 0);
  }

  /** As if the signal had come. */
  stop(signal: "SIGTERM" | "SIGINT"): void {
    const { log, drainMs, abandon } = this.#options;
    const code = 128 + constants.signals[signal];
    if (this.#instance === undefined) {
      abandon();
      process.exit(code);
    }
    this.#successors?.signalAll("SIGTERM");
    if (this.#stopping) {
      log.warn({ signal }, "ending at once");
      this.#hurried = code;
      this.#instance.hurry();
      setTimeout(() => this.#end(code), FLUSH_MS).unref();
      return;
    }
    this.#stopping = true;
    this.#instance.shutdown({ drainMs, reason: signal }).then(
      () => this.done(),
      (error: unknown) => {
        log.error({ err: error }, "the shutdown failed");
        this.#end(ERRORS.TM_INTERNAL.exit);
      },
    );
  }

  #finish(code: number): void {
    if (this.#successors === undefined) this.#end(code);
    else void this.#successors.ended.then((last) => this.#end(last));
  }

  #restart(): void {
    if (this.#successors !== undefined) this.#successors.signal("SIGUSR2");
    else if (this.#instance === undefined)
      this.#options.log.warn({}, "SIGUSR2 before it serves: nothing is done");
    else void this.#instance.restart();
  }
  /** A terminal that closes sends SIGHUP too; then there is nobody left to run in the foreground for. */
  #hangUp(): void {
    if (this.#hadTerminal && !isatty(2)) this.stop("SIGTERM");
    else if (this.#successors !== undefined) this.#successors.signal("SIGHUP");
    else void this.#instance?.reload("SIGHUP");
  }

  #stray(reason: unknown): void {
    this.#options.log.error({ ...this.#blame(reason), err: reason }, "unhandled rejection");
  }
  /** The plugin that an error comes from, as a fact for the log. */
  #blame(error: unknown): { readonly plugin?: string } {
    const named = error instanceof TokenmanError ? error.plugin : undefined;
    const plugin = named ?? this.#instance?.generation.ownerOf(error)?.name;
    return plugin === undefined ? {} : { plugin };
  }

  /**
   * Nobody knows what an exception left half-done, so the process ends; but what is in flight mostly has nothing to do
   * with it, and gets a moment to end. A second exception, or a shutdown that hangs, ends the process at once.
   */
  #die(error: unknown): void {
    const exit = ERRORS.TM_INTERNAL.exit;
    const instance = this.#instance;
    const again = this.#dying;
    this.#dying = true;
    try {
      const { text } = describeFailure(error);
      this.#options.log.error({ exit, ...this.#blame(error) }, `uncaught exception, ending: ${text}`);
      if (instance !== undefined && !again) {
        this.#stopping = true;
        setTimeout(() => this.#leaveAtOnce(exit), DYING_MS);
        const ended = instance.shutdown({ drainMs: DYING_DRAIN_MS, reason: "uncaught exception" });
        void ended.catch(() => {}).then(() => this.#end(exit));
        return;
      }
    } catch {
      // Whatever fails now must not keep the process.
    }
    this.#leaveAtOnce(exit);
  }
  #leaveAtOnce(code: number): void {
    try {
      this.#options.abandon();
    } finally {
      process.exit(code);
    }
  }
}

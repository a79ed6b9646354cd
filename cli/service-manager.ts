import { execFile } from "node:child_process";
import type { Logger } from "@tokenman/plugin-sdk";

/** What is told, as sd_notify(3) has it: READY, RELOADING, STOPPING, STATUS, MAINPID, WATCHDOG. */
export type State = Readonly<Record<string, string>>;

const PROGRAM = "systemd-notify";
const TELL_MS = 5_000;

/**
 * The service manager that runs this process, where it wants to be told (`Type=notify`). Its socket is a Unix datagram
 * socket, which Node cannot write to: the messages go through systemd's own `systemd-notify`, one process each. That is
 * why the unit needs `NotifyAccess=all`. Messages arrive in the order in which they are told.
 */
export class ServiceManager {
  readonly #socket: string;
  /** Between two signs of life; undefined where none is wanted. */
  readonly #watchdogUsec: string | undefined;
  readonly #log: Logger;
  #last: Promise<void> = Promise.resolve();
  #failed = false;
  #watchdog: NodeJS.Timeout | undefined;

  /**
   * Undefined where NOTIFY_SOCKET is not set. Takes what concerns this process out of the environment, so that no program
   * that it runs speaks in its place.
   */
  static take(env: NodeJS.ProcessEnv, log: Logger): ServiceManager | undefined {
    const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: usec, WATCHDOG_PID: pid } = env;
    for (const name of ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]) delete env[name];
    if (socket === undefined || socket === "") return undefined;
    const watched = Number(usec) > 0 && (pid === undefined || Number(pid) === process.pid);
    return new ServiceManager(socket, watched ? usec : undefined, log);
  }

  private constructor(socket: string, watchdogUsec: string | undefined, log: Logger) {
    this.#socket = socket;
    this.#watchdogUsec = watchdogUsec;
    this.#log = log;
  }

  /** What a successor is to find in its environment. */
  get environment(): Record<string, string> {
    const usec = this.#watchdogUsec;
    return { NOTIFY_SOCKET: this.#socket, ...(usec !== undefined && { WATCHDOG_USEC: usec }) };
  }

  /** Resolves when the manager has been told; also where it could not be, which is logged once. */
  tell(state: State): Promise<void> {
    this.#last = this.#last.then(() => this.#send(state));
    return this.#last;
  }
  /** Since when a reload runs is told in microseconds of CLOCK_MONOTONIC, which Node's clock is on Linux. */
  reloading(): Promise<void> {
    return this.tell({ RELOADING: "1", MONOTONIC_USEC: String(process.hrtime.bigint() / 1000n) });
  }
  /** STATUS is for people; it is one line. */
  ready(status: string): Promise<void> {
    return this.tell({ READY: "1", STATUS: oneLine(status) });
  }
  stopping(status: string): Promise<void> {
    return this.tell({ STOPPING: "1", STATUS: oneLine(status) });
  }

  /** Gives signs of life, twice as often as they are wanted. They come from the event loop: one that hangs gives none. */
  watch(): void {
    if (this.#watchdogUsec === undefined) return;
    const everyMs = Math.max(1, Math.floor(Number(this.#watchdogUsec) / 2_000));
    let isOnItsWay = false;
    this.#watchdog = setInterval(async () => {
      // On a machine that is too busy to run a small program they must not pile up.
      if (isOnItsWay) return;
      isOnItsWay = true;
      await this.tell({ WATCHDOG: "1" });
      isOnItsWay = false;
    }, everyMs);
    this.#watchdog.unref();
  }
  /** Another process gives them from now on. */
  unwatch(): void {
    clearInterval(this.#watchdog);
  }

  #send(state: State): Promise<void> {
    const assignments = Object.entries(state).map(([name, value]) => `${name}=${value}`);
    const env = { ...process.env, NOTIFY_SOCKET: this.#socket };
    return new Promise((resolve) => {
      execFile(PROGRAM, assignments, { env, timeout: TELL_MS }, (error) => {
        if (error !== null && !this.#failed) {
          this.#failed = true;
          const missing = (error as NodeJS.ErrnoException).code === "ENOENT";
          this.#log.warn(
            { err: error.message },
            missing
              ? `the service manager cannot be told anything: there is no ${PROGRAM} on the PATH`
              : "the service manager could not be told",
          );
        }
        resolve();
      });
    });
  }
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, " ").trim();
}

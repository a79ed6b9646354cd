import { type Logger, TokenmanError } from "@tokenman/plugin-sdk";
import type { Kernel } from "../kernel/kernel.ts";
import { describeFailure } from "./failure.ts";
import { Successors } from "./line.ts";
import { LogFile } from "./log-file.ts";
import type { Origin } from "./origin.ts";
import { isAlive, type PidClaim } from "./pid-file.ts";
import { type RestartAnswer, type RestartRequest, takeRequest, writeAnswer } from "./restart-request.ts";
import type { ServiceManager } from "./service-manager.ts";
import { type Successor, SuccessorFailed, startSuccessor } from "./successor.ts";

export interface RestarterOptions {
  readonly dataDir: string;
  readonly origin: Origin;
  readonly kernel: Pick<Kernel, "leave" | "shutdown" | "sockets" | "status">;
  readonly claim: PidClaim;
  readonly manager: ServiceManager | undefined;
  readonly log: Logger;
  /** How long requests may take when the process that followed this one has been stopped. */
  readonly stopDrainMs: number;
  /** This process is to stay as long as its successors do, and to pass signals on to them. */
  readonly keep: (successors: Successors) => void;
  /** All that this process still had to do is done. */
  readonly done: () => void;
}

/** Where no command says: a signal alone asked for it. */
const TIMEOUT_MS = 30_000;
/** An agent's stream may be long, and nobody waits for the old process to end. */
const DRAIN_MS = 3_600_000;
/** The exit code where the last successor ended without saying how: it was killed. */
const LOST = 70;

/** Hands the ports over to a new process. Where that does not come up, this one serves on. */
export class Restarter {
  readonly #options: RestarterOptions;
  #starting: AbortController | undefined;
  #handedOver = false;

  constructor(options: RestarterOptions) {
    this.#options = options;
  }
  /** Whether another process is the instance now. */
  get handedOver(): boolean {
    return this.#handedOver;
  }

  /** Does what the request in the data folder asks for, if there is one, and answers it. Never rejects. */
  async restart(): Promise<void> {
    const { dataDir, log } = this.#options;
    const request = takeRequest(dataDir);
    const answer = await this.#answer(request);
    if (!answer.ok) {
      const rest = answer.stopping === true ? "ends" : "serves on";
      log.error({}, `not restarted, this process ${rest}: ${answer.text}`);
    }
    if (request === undefined) return;
    try {
      writeAnswer(dataDir, request, answer);
    } catch (cause) {
      log.error({ err: cause }, "the command that asked for a restart could not be answered");
    }
  }
  /** Ends a successor that is not the instance yet: this process is to end itself. */
  abort(): void {
    this.#starting?.abort(new SuccessorFailed("it was told to stop meanwhile", 69));
  }

  async #answer(request: RestartRequest | undefined): Promise<RestartAnswer> {
    if (this.#handedOver || this.#starting !== undefined)
      return { ok: false, text: "a restart is under way already", exit: 69 };
    this.#starting = new AbortController();
    const { dataDir, origin, log, claim } = this.#options;
    let logFile: LogFile | undefined;
    try {
      if (origin.background) logFile = new LogFile(dataDir);
      log.info({ ...(request && { entry: request.entry }) }, "starting a process to hand over to");
      const successor = await this.#start(request, logFile?.fd, this.#starting.signal);
      const { pid, version, proxy, dashboard } = successor;
      const inFlight = this.#leave(successor, request?.drainMs ?? DRAIN_MS);
      return { ok: true, pid, version, proxy, dashboard, inFlight };
    } catch (cause) {
      claim.reclaim();
      return { ...failed(cause, logFile), stopping: this.#starting.signal.aborted };
    } finally {
      logFile?.close();
      this.#starting = undefined;
    }
  }

  /** A process that serves beside this one and is the instance by now. */
  async #start(
    request: RestartRequest | undefined,
    log: number | undefined,
    signal: AbortSignal,
  ): Promise<Successor> {
    const { origin, kernel, manager } = this.#options;
    const entry = request?.entry ?? (process.argv[1] as string);
    const successor = await startSuccessor(
      {
        execPath: request?.execPath ?? process.execPath,
        args: [...process.execArgv, entry, ...process.argv.slice(2)],
        env: { ...process.env, ...manager?.environment },
        origin: {
          background: origin.background,
          before: [...origin.before.filter(isAlive), ...(this.#keeps ? [] : [this.#options.claim.self])],
        },
        log,
        line: this.#keeps ? "new" : origin.line,
        sockets: kernel.sockets,
        timeoutMs: request?.timeoutMs ?? TIMEOUT_MS,
      },
      signal,
    );
    await successor.install();
    // What came too late to keep it from becoming the instance is meant for the instance.
    if (signal.aborted) process.kill(successor.pid, "SIGTERM");
    return successor;
  }
  /** Whether somebody waits for this very process, who cannot be told of another. */
  get #keeps(): boolean {
    const { origin, manager } = this.#options;
    return !origin.background && origin.line === undefined && manager === undefined;
  }

  /** Stops accepting, and ends this process when it has nothing left to do. Gives the number of requests in flight. */
  #leave({ pid, line }: Successor, drainMs: number): number {
    const { kernel, manager, keep, done, stopDrainMs, log } = this.#options;
    this.#handedOver = true;
    manager?.unwatch();
    // Were this process gone before it is told, the manager would take the service for ended.
    const told = manager?.tell({ MAINPID: String(pid) });
    if (line !== undefined) {
      const successors = new Successors(line, LOST);
      keep(successors);
      void successors.ended.then(() =>
        kernel.shutdown({ drainMs: stopDrainMs, reason: "the process that took over has ended" }),
      );
    }
    const inFlight = kernel.status().activeExchanges;
    const left = kernel.leave({ drainMs, reason: "restart" });
    Promise.all([left, told])
      .catch((cause: unknown) => log.error({ err: cause }, "not all could be given back"))
      .finally(done);
    return inFlight;
  }
}

function failed(
  cause: unknown,
  logFile: LogFile | undefined,
): Extract<RestartAnswer, { readonly ok: false }> {
  const said = logFile?.tail() ?? "";
  if (!(cause instanceof SuccessorFailed)) {
    const { text, exit } = describeFailure(cause);
    const late = cause instanceof TokenmanError && cause.code === "TM_START_TIMEOUT";
    return { ok: false, text: late ? text + said : text, exit };
  }
  const text = cause.text === "" ? `it ended without a word${said}` : cause.text;
  return { ok: false, text: text.trimEnd(), exit: cause.exit === 0 ? LOST : cause.exit };
}

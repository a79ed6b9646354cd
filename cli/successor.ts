import { type ChildProcess, type SendHandle, spawn } from "node:child_process";
import type { Duplex } from "node:stream";
import { ERRORS, TokenmanError } from "@tokenman/plugin-sdk";
import type { HandedSockets } from "../kernel/kernel.ts";
import { endChild } from "./end-child.ts";
import type { HandOverMessage, StartMessage } from "./messages.ts";
import { type Origin, originVariable } from "./origin.ts";

export interface SuccessorOptions {
  readonly execPath: string;
  /** The script and its arguments. */
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  readonly origin: Omit<Origin, "successor" | "line">;
  /** What stdout and stderr are; undefined: this process's. */
  readonly log: number | undefined;
  /** A descriptor to hand down; "new": a new pipe to this process; undefined: none. */
  readonly line: number | "new" | undefined;
  readonly sockets: HandedSockets;
  readonly timeoutMs: number;
}

/** A process that serves the same sockets as this one, and waits to be told that it is the instance. */
export interface Successor {
  readonly pid: number;
  readonly proxy: string;
  readonly dashboard: string;
  readonly version: string;
  /** This end of a "new" line. */
  readonly line: Duplex | undefined;
  /** Makes it the instance, and lets go of it. Rejects where it ended before it was. */
  install(): Promise<void>;
}

/** How it ended before it served. */
export class SuccessorFailed extends Error {
  /** Empty where it ended without a word. */
  readonly text: string;
  readonly exit: number;
  constructor(text: string, exit: number) {
    super(text);
    this.text = text;
    this.exit = exit;
  }
}

const LINE_FD = 4;
const INSTALL_MS = 5_000;

/**
 * Starts a process that loads everything, then serves the sockets too. Rejects with {@link SuccessorFailed}, or with
 * TM_START_TIMEOUT; no process is left then. Aborting `signal` ends it.
 */
export async function startSuccessor(options: SuccessorOptions, signal: AbortSignal): Promise<Successor> {
  const { execPath, args, env, origin, log, line, sockets, timeoutMs } = options;
  const child = spawn(execPath, args, {
    // In a session of its own: a terminal's Ctrl-C is for the process in the foreground, which passes it on.
    detached: true,
    stdio: [
      "ignore",
      log ?? "inherit",
      log ?? "inherit",
      "ipc",
      line === "new" ? "pipe" : (line ?? "ignore"),
    ],
    env: {
      ...env,
      ...originVariable({ ...origin, successor: true, ...(line !== undefined && { line: LINE_FD }) }),
    },
  });
  const messages = new Messages(child);
  const late = AbortSignal.timeout(timeoutMs);
  try {
    await messages.next("prepared", AbortSignal.any([signal, late]));
    for (const name of ["proxy", "dashboard"] as const) {
      const socket = sockets[name];
      if (socket === undefined) throw new TokenmanError("TM_INTERNAL", `the ${name} port is closed`);
      const { handle, address, port } = socket;
      send(child, { kind: "socket", name, address, port }, handle);
    }
    const { proxy, dashboard, version } = await messages.next("ready", AbortSignal.any([signal, late]));
    return {
      pid: child.pid as number,
      proxy,
      dashboard,
      version,
      line: line === "new" ? (child.stdio[LINE_FD] as Duplex) : undefined,
      async install() {
        try {
          send(child, { kind: "yours" });
          await messages.next("installed", AbortSignal.timeout(INSTALL_MS));
        } catch (cause) {
          await endChild(child);
          if (cause instanceof SuccessorFailed) throw cause;
          throw new TokenmanError("TM_START_TIMEOUT", "the new process did not take over, and was stopped", {
            cause,
          });
        }
        if (child.connected) child.disconnect();
        child.unref();
      },
    };
  } catch (cause) {
    // Where this process is about to end itself, nobody is left to look whether it hears.
    if (signal.aborted) child.kill("SIGKILL");
    else await endChild(child);
    if (late.aborted && !(cause instanceof SuccessorFailed)) {
      throw new TokenmanError(
        "TM_START_TIMEOUT",
        `the new process did not become ready within ${timeoutMs / 1000} s and was stopped`,
        { cause },
      );
    }
    throw cause;
  }
}

/** What the child says, in order. */
class Messages {
  readonly #queue: (StartMessage | SuccessorFailed)[] = [];
  #wake: () => void = () => {};

  constructor(child: ChildProcess) {
    child.on("message", (message) => this.#add(message as StartMessage));
    child.on("error", (error) =>
      this.#add(new SuccessorFailed(`it could not be started: ${error.message}`, ERRORS.TM_NOT_RUNNING.exit)),
    );
    // "close" comes after the last message, which "exit" may overtake.
    child.on("close", (code, by) =>
      this.#add(
        new SuccessorFailed(by === null ? "" : `it was ended by ${by}`, code ?? ERRORS.TM_INTERNAL.exit),
      ),
    );
  }

  /** The next message, which must be of this kind: those of kinds that are not known are skipped. */
  async next<Kind extends StartMessage["kind"]>(
    kind: Kind,
    signal: AbortSignal,
  ): Promise<Extract<StartMessage, { kind: Kind }>> {
    for (;;) {
      signal.throwIfAborted();
      const message = this.#queue.shift();
      if (message instanceof SuccessorFailed) throw message;
      if (message?.kind === "failed") throw new SuccessorFailed(message.text, message.exit);
      if (message?.kind === kind) return message as Extract<StartMessage, { kind: Kind }>;
      if (message === undefined) await this.#more(signal);
    }
  }
  #more(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
      signal.addEventListener("abort", () => resolve(), { once: true });
    });
  }
  #add(message: StartMessage | SuccessorFailed): void {
    this.#queue.push(message);
    this.#wake();
  }
}

function send(child: ChildProcess, message: HandOverMessage, handle?: object): void {
  // One that is gone says so by its end.
  child.send(message, handle as SendHandle | undefined, {}, () => {});
}

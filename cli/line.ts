import { writeSync } from "node:fs";
import { Socket } from "node:net";
import type { Readable } from "node:stream";
import type { ProcessRef } from "./origin.ts";
import { isAlive, signalInstance } from "./pid-file.ts";

/*
 * Whoever starts TokenMan in the foreground (a terminal, a container, a supervisor) waits for the process that he
 * started. So that one stays when it has handed over: it passes signals on to its successors, and ends when the last of
 * them has. Between them is a pipe, which each hands down to the next. A line of JSON on it says who is the instance now,
 * or how it ended.
 */
type Said = ProcessRef | { readonly exit: number };

const LOOK_MS = 1_000;
const GONE_MS = 10;

/** The successors' end. */
export class Line {
  readonly fd: number;
  readonly #socket: Socket;

  /** `gone` is called when the process in the foreground has ended. */
  constructor(fd: number, gone: () => void) {
    this.fd = fd;
    this.#socket = new Socket({ fd, readable: true, writable: true });
    this.#socket.on("error", () => {});
    this.#socket.once("close", gone);
    this.#socket.resume();
    this.#socket.unref();
  }

  say(said: Said): void {
    try {
      writeSync(this.fd, `${JSON.stringify(said)}\n`);
    } catch {
      // It has ended: `gone` says so.
    }
  }
}

/** The end of the process in the foreground. */
export class Successors {
  /** The exit code of the last of them, when none is left. */
  readonly ended: Promise<number>;
  readonly #all: ProcessRef[] = [];

  /** `lost` is the exit code where the last one ended without a word. */
  constructor(line: Readable, lost: number) {
    let rest = "";
    let exit = lost;
    line.setEncoding("utf8");
    line.on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const each of lines) {
        const said = parse(each);
        if (said === undefined) continue;
        if ("exit" in said) exit = said.exit;
        else {
          exit = lost;
          this.#all.push(said);
        }
      }
    });
    line.on("error", () => {});
    const { promise, resolve } = Promise.withResolvers<number>();
    this.ended = promise.finally(() => clearInterval(looking));
    // A process that ends lets go of the line a moment before it is gone.
    const ended = (): void => {
      if (this.#all.some(isAlive)) setTimeout(ended, GONE_MS);
      else resolve(exit);
    };
    line.once("close", ended);
    // The line ends with the last that holds it, which may be one that finishes requests for long, or a program that a
    // plugin started. When the instance is gone they are not what somebody waits for.
    let stopped = false;
    const looking = setInterval(() => {
      const last = this.#all.at(-1);
      if (last === undefined || isAlive(last)) return;
      if (!stopped) this.signalAll("SIGTERM");
      stopped = true;
      if (!this.#all.some(isAlive)) resolve(exit);
    }, LOOK_MS);
  }

  /** To the one that is the instance now. */
  signal(signal: NodeJS.Signals): void {
    const last = this.#all.at(-1);
    if (last !== undefined) signalInstance(last, signal);
  }
  /** To all that are left: those before the last finish requests. */
  signalAll(signal: NodeJS.Signals): void {
    for (const each of this.#all.filter(isAlive)) signalInstance(each, signal);
  }
}

/** Undefined for what is none of ours. */
function parse(line: string): Said | undefined {
  try {
    const said = JSON.parse(line) as Partial<ProcessRef & { readonly exit: number }> | null;
    if (typeof said?.exit === "number") return { exit: said.exit };
    if (typeof said?.pid !== "number" || typeof said.identity !== "string") return undefined;
    return { pid: said.pid, identity: said.identity };
  } catch {
    return undefined;
  }
}

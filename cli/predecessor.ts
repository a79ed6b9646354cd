import { TokenmanError } from "@tokenman/plugin-sdk";
import type { HandedSockets } from "../kernel/kernel.ts";
import type { HandedSocket, SocketHandle } from "../kernel/listener.ts";
import { type HandOverMessage, tell, tellStarter } from "./messages.ts";

/** The process that this one takes over from, as the successor sees it. */
export class Predecessor {
  readonly pid = process.ppid;
  readonly #sockets = new Map<"proxy" | "dashboard", HandedSocket>();
  readonly #both = Promise.withResolvers<void>();
  readonly #yours = Promise.withResolvers<void>();

  constructor() {
    process.on("message", (message: HandOverMessage, handle: unknown) => {
      if (message.kind === "yours") this.#yours.resolve();
      else if (message.kind === "socket") {
        const { name, address, port } = message;
        // Without a handle a port would be opened anew, and a free one at that.
        if (handle === undefined || handle === null) {
          this.#both.reject(new TokenmanError("TM_LISTEN", `the ${name} port's socket did not arrive`));
          return;
        }
        this.#sockets.set(name, { handle: handle as SocketHandle, address, port });
        if (this.#sockets.size === 2) this.#both.resolve();
      }
    });
    process.once("disconnect", () => {
      this.#both.reject(new TokenmanError("TM_NOT_RUNNING", "the process to take over from has ended"));
      // Who has the sockets goes on without it.
      this.#yours.resolve();
    });
    // Nobody may have asked yet.
    this.#both.promise.catch(() => {});
  }

  /** Says that all is loaded, and resolves to the sockets to serve. Rejects with TM_NOT_RUNNING. */
  async sockets(): Promise<HandedSockets> {
    await tell({ kind: "prepared" });
    await this.#both.promise;
    return { proxy: this.#sockets.get("proxy"), dashboard: this.#sockets.get("dashboard") };
  }

  /** Says that this process serves, and resolves when it is to become the instance. */
  async serving(facts: {
    readonly proxy: string;
    readonly dashboard: string;
    readonly version: string;
  }): Promise<void> {
    await tell({ kind: "ready", ...facts });
    await this.#yours.promise;
  }

  /** Says that this process is the instance. */
  async installed(): Promise<void> {
    await tellStarter({ kind: "installed" });
  }
}

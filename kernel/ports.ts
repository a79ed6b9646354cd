import { type Logger, type TokenmanError, TokenmanErrors } from "@tokenman/plugin-sdk";
import type { ServerConfig } from "./config/index.ts";
import { type HandedSocket, Listener, type ListenerOptions } from "./listener.ts";

export interface Addresses {
  readonly proxyAddress: string;
  readonly dashboardAddress: string;
}

/** The listening sockets of another process, to be served from here. */
export interface HandedSockets {
  readonly proxy?: HandedSocket | undefined;
  readonly dashboard?: HandedSocket | undefined;
}

export interface PortsOptions {
  readonly server: ServerConfig;
  readonly log: Logger;
  /** Served where they are what the config wants. */
  readonly handed: HandedSockets;
  readonly handlers: Readonly<Record<"proxy" | "dashboard", ListenerOptions["handle"]>>;
}

/** Both listening ports. */
export class Ports {
  readonly #proxy: Listener;
  readonly #dashboard: Listener;

  constructor({ server, log, handed, handlers }: PortsOptions) {
    const listener = (name: "proxy" | "dashboard"): Listener => {
      const port = server[`${name}_port`];
      const own = fitting(handed[name], server.bind_address, port);
      return new Listener({ name, port, server, log, handed: own, handle: handlers[name] });
    };
    this.#proxy = listener("proxy");
    this.#dashboard = listener("dashboard");
  }

  /** Opens both. Rejects with TM_PORT_IN_USE or TM_LISTEN, and has then opened none. */
  async open(): Promise<void> {
    const opened = await Promise.allSettled([this.#proxy.listen(), this.#dashboard.listen()]);
    const failures = opened.flatMap((result) =>
      result.status === "rejected" ? [result.reason as TokenmanError] : [],
    );
    if (failures.length === 0) return;
    this.destroy();
    throw new TokenmanErrors(failures);
  }
  get addresses(): Addresses {
    return { proxyAddress: this.#proxy.address, dashboardAddress: this.#dashboard.address };
  }
  /** The listening sockets, for another process that is to serve them. */
  get sockets(): HandedSockets {
    return { proxy: this.#proxy.socket, dashboard: this.#dashboard.socket };
  }
  /** No further connections; resolves when those of the proxy's port have ended. */
  leave(): Promise<void> {
    void this.#dashboard.stopAccepting();
    return this.#proxy.stopAccepting();
  }
  /** No further connections to the proxy's port; the dashboard shows the end. */
  stopAccepting(): void {
    void this.#proxy.stopAccepting();
  }
  closeIdle(): void {
    this.#proxy.closeIdle();
  }
  destroy(): void {
    this.#proxy.destroy();
    this.#dashboard.destroy();
  }
}

/** The socket, where it was opened for this address and port. Another one is let go of: a port has changed. */
function fitting(handed: HandedSocket | undefined, address: string, port: number): HandedSocket | undefined {
  if (handed === undefined || (handed.address === address && handed.port === port)) return handed;
  handed.handle.close();
  return undefined;
}

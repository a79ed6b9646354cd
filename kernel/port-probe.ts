import net from "node:net";
import { type TokenmanError, TokenmanErrors } from "@tokenman/plugin-sdk";
import type { ServerConfig } from "./config/index.ts";
import { listenError } from "./listener.ts";

/**
 * Finds out whether both ports are free, by opening and closing them, so that a start that cannot succeed is refused
 * before a plugin has made a file. Rejects with TokenmanErrors: TM_PORT_IN_USE, TM_LISTEN, for each port.
 */
export async function probePorts(server: ServerConfig): Promise<void> {
  const probed = await Promise.allSettled([probe("proxy", server), probe("dashboard", server)]);
  const failures = probed.flatMap((result) =>
    result.status === "rejected" ? [result.reason as TokenmanError] : [],
  );
  if (failures.length > 0) throw new TokenmanErrors(failures);
}

function probe(name: "proxy" | "dashboard", server: ServerConfig): Promise<void> {
  const port = name === "proxy" ? server.proxy_port : server.dashboard_port;
  // Any free one: there is nothing to find out.
  if (port === 0) return Promise.resolve();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const probing = net.createServer((socket) => socket.destroy());
  probing.once("error", (cause) => reject(listenError(cause, name, port, server.bind_address)));
  probing.listen({ port, host: server.bind_address }, () => probing.close(() => resolve()));
  return promise;
}

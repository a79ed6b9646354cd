import { createHash } from "node:crypto";
import { type Provider, type ProviderConnection, TokenmanError } from "@tokenman/plugin-sdk";
import type { Origin } from "./origin.ts";

/** Time-outs as they hold, all in milliseconds; 0 is none. */
export interface Timeouts {
  readonly headMs: number;
  readonly idleMs: number;
  readonly totalMs: number;
}

/** Where a provider's requests go, and how long they may take. */
export interface Target {
  readonly origin: Origin;
  /** What stands before a request's path. */
  readonly prefix: string;
  readonly timeouts: Timeouts;
}

/** Works out a provider's target. `originOf` finds the origin of a key that tells all that connections differ by. */
export function targetOf(
  provider: Provider,
  streamIdleMs: number,
  originOf: (key: string, url: URL) => Origin,
): Target {
  const { apiBase, timeouts, connection } = provider;
  if (apiBase === undefined)
    throw new TokenmanError("TM_NO_PROVIDER", `provider ${provider.name} has neither api_base nor answer()`);
  const url = new URL(apiBase);
  const key = `${url.origin} ${timeouts.connectMs} ${connection === undefined ? "" : fingerprint(connection)}`;
  return {
    origin: originOf(key, url),
    prefix: url.pathname.replace(/(?<!\/)\/+$/, ""),
    timeouts: {
      headMs: timeouts.headMs,
      idleMs: timeouts.idleMs ?? streamIdleMs,
      totalMs: timeouts.totalMs ?? 0,
    },
  };
}

/** The same for equal options, without showing what is secret in them. */
function fingerprint(connection: ProviderConnection): string {
  const { proxy, clientCertificate: own } = connection;
  const told = [
    connection.maxConnections,
    connection.keepAliveMs,
    connection.maxAgeMs,
    typeof proxy === "object" ? proxy.reveal() : proxy,
    connection.ca,
    own?.cert,
    own?.key.reveal(),
    own?.passphrase?.reveal(),
    connection.serverName,
  ];
  return createHash("sha256")
    .update(JSON.stringify(told.map((each) => each ?? null)))
    .digest("base64");
}

import type { AddressInfo, Server } from "node:net";
import type { Readable } from "node:stream";
import type { Provider, ProviderConnection, ProviderTimeouts } from "@tokenman/plugin-sdk";
import { gate } from "@tokenman/plugin-sdk/testkit";
import { Connections, type ConnectionsOptions } from "../../../kernel/upstream/connections.ts";
import { type DispatchCall, dispatch } from "../../../kernel/upstream/dispatch.ts";

/** In milliseconds. */
export const MINUTE = 60_000;

/** A provider at that address, with these time-outs in the place of long ones. */
export function providerAt(
  apiBase: string,
  timeouts: Partial<ProviderTimeouts> = {},
  connection?: ProviderConnection,
): Provider {
  return {
    name: "p",
    format: "anthropic",
    apiBase,
    models: [],
    priority: 0,
    timeouts: { connectMs: 10_000, headMs: 10 * MINUTE, idleMs: undefined, ...timeouts },
    connection,
    auth: "none",
  };
}

/** A call, and how it ends: its status and body, or the code of what went wrong and whether there was a head. */
interface Asked {
  readonly call: DispatchCall;
  readonly head: Promise<void>;
  readonly end: Promise<string>;
  /** Resolves when this much of the body has come. */
  came(text: string): Promise<void>;
}

/** Calls a provider. */
export function ask(
  connections: Connections,
  provider: Provider,
  body?: Buffer | Readable,
  path = "/v1/messages",
): Asked {
  const head = gate();
  const end = Promise.withResolvers<string>();
  const chunks: Buffer[] = [];
  const text = (): string => Buffer.concat(chunks).toString();
  let look = (): void => {};
  const target = connections.to(provider, 10 * MINUTE);
  const call = dispatch(
    target.origin,
    { method: "POST", path, headers: ["X-A", "1"], body, timeouts: target.timeouts },
    {
      head(status, _text, _headers, source) {
        source.start({
          data(chunk) {
            chunks.push(chunk);
            look();
          },
          end: () => end.resolve(`${status} ${text()}`),
          fail: (error) => end.resolve(`${status} ${text()} ${error.code}`),
        });
        head.open();
      },
      error: (error, bytesSent) => end.resolve(`${error.code}${bytesSent ? " sent" : ""}`),
      informational() {},
      firstByte() {},
    },
  );
  const came = (wanted: string): Promise<void> =>
    new Promise((resolve) => {
      look = () => {
        if (text() === wanted) resolve();
      };
      look();
    });
  return { call, head: head.opened, end: end.promise, came };
}

/** The connections of one test, closed at its end. */
export function connecting(options?: ConnectionsOptions): Connections & Disposable {
  const connections = new Connections(options);
  return Object.assign(connections, { [Symbol.dispose]: () => connections.close() });
}

/** Resolves with the port, once it listens. */
export async function listening(server: Server, host = "127.0.0.1", port = 0): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, resolve);
  });
  return (server.address() as AddressInfo).port;
}

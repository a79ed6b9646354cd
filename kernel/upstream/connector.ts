import type { Socket, TcpSocketConnectOpts } from "node:net";
import { createSecureContext, getCACertificates, type SecureContext } from "node:tls";
import { type ProviderConnection, TokenmanError } from "@tokenman/plugin-sdk";
import buildConnector from "undici/lib/core/connect.js";
import type { UpstreamProxy } from "./proxy.ts";
import { tunnelThrough } from "./tunnel.ts";

/** Where a connection leads: as undici asks for it. */
export type Destination = buildConnector.Options;
type Layer = ReturnType<typeof buildConnector>;
type Connected = (error: Error | null, socket: Socket | null) => void;

/** How connections to one origin are made. */
export interface ConnectorOptions {
  /** For all of it: name, proxy, TLS. 0: no limit. */
  readonly connectMs: number;
  readonly proxy: UpstreamProxy | undefined;
  readonly trust: Trust;
  /** In the place of the system's name look-up. */
  readonly lookup: Lookup | undefined;
}
export type Trust = Pick<ProviderConnection, "ca" | "clientCertificate" | "serverName">;
export type Lookup = NonNullable<TcpSocketConnectOpts["lookup"]>;

/** A connection being made, which can be called off. */
export interface Connecting {
  abandon(): void;
}
export type Connector = (to: Destination, done: Connected) => Connecting;

/** TCP keep-alive finds out that a peer is gone without a word (FAULTS 3). */
const PROBE_AFTER_MS = 30_000;

/**
 * Makes sockets that an HTTP/1.1 client can use: directly, or through a proxy. A name is looked up for every socket, and
 * its addresses are tried one after the other (Node's autoSelectFamily). One time-out covers everything.
 */
export function makeConnector({ connectMs, proxy, trust, lookup }: ConnectorOptions): Connector {
  // Each layer's own time-out is off.
  const plain = {
    timeout: 0,
    allowH2: false,
    keepAlive: true,
    keepAliveInitialDelay: PROBE_AFTER_MS,
    ...(lookup !== undefined && { lookup }),
  };
  let layer: Layer | undefined;
  /** To the origin itself: made late, as reading certificates takes a while. */
  const origin = (): Layer => {
    layer ??= buildConnector({ ...plain, ...tlsOptions(trust) });
    return layer;
  };
  const toProxy = proxy === undefined ? undefined : buildConnector(plain);
  return (to, done) => {
    const pending = new PendingConnection(connectMs, done);
    if (proxy === undefined || toProxy === undefined) {
      pending.connect(origin, to, pending.finish);
      return pending;
    }
    pending.connect(
      () => toProxy,
      proxy.address,
      (error, socket) => {
        if (error !== null || socket === null) {
          pending.finish(proxyFailure(proxy, error), null);
          return;
        }
        if (proxy.forwards && to.protocol === "http:") {
          pending.finish(null, socket);
          return;
        }
        tunnelThrough(proxy, socket, to, (refused) => {
          if (refused !== undefined) pending.finish(refused, null);
          else if (to.protocol === "http:") pending.finish(null, socket);
          else pending.connect(origin, { ...to, httpSocket: socket }, pending.finish);
        });
      },
    );
    return pending;
  };
}

class PendingConnection implements Connecting {
  readonly #done: Connected;
  readonly #timer: NodeJS.Timeout | undefined;
  #socket: Socket | undefined;
  #over = false;

  constructor(connectMs: number, done: Connected) {
    this.#done = done;
    if (connectMs <= 0) return;
    this.#timer = setTimeout(() => {
      const late = new TokenmanError("TM_UPSTREAM_CONNECT_TIMEOUT", `no connection within ${connectMs} ms`);
      this.finish(late, null);
    }, connectMs);
    // Whoever waits for the connection keeps the process alive, if anybody does.
    this.#timer.unref();
  }
  /** One layer more: TCP, or TLS over what is there. */
  connect(layer: () => Layer, to: Destination, done: Connected): void {
    try {
      // Its type does not say so, but it returns the socket.
      this.#socket = layer()(to, (...[error, connected]) => {
        if (!this.#over) done(error, connected);
      }) as unknown as Socket;
    } catch (cause) {
      this.finish(cause as Error, null);
    }
  }
  readonly finish: Connected = (error, socket) => {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    if (error !== null) this.#socket?.on("error", () => {}).destroy();
    this.#socket = undefined;
    this.#done(error, socket);
  };
  abandon(): void {
    this.finish(new TokenmanError("TM_CLIENT_GONE"), null);
  }
}

/** The system's own words for what did not connect; all others are TLS's. */
const SYSTEM_ERROR = /^E(?!RR_)[A-Z_]+$/;

function proxyFailure(proxy: UpstreamProxy, cause: Error | null): TokenmanError {
  const code = (cause as NodeJS.ErrnoException | null)?.code ?? "";
  const message = `the proxy ${proxy.address.host} is not reached: ${code}`;
  return new TokenmanError(SYSTEM_ERROR.test(code) ? "TM_UPSTREAM_CONNECT" : "TM_UPSTREAM_PROXY", message, {
    cause,
  });
}

function tlsOptions({ ca, clientCertificate, serverName }: Trust): buildConnector.BuildOptions {
  const secureContext =
    ca === undefined && clientCertificate === undefined ? undefined : contextOf(ca, clientCertificate);
  return {
    ...(secureContext !== undefined && { secureContext }),
    ...(serverName !== undefined && { servername: serverName }),
  };
}

/** What is trusted and shown. Throws what OpenSSL says of certificates and keys that it cannot use. */
function contextOf(ca: string | undefined, own: Trust["clientCertificate"]): SecureContext {
  return createSecureContext({
    ...(ca !== undefined && { ca: [...getCACertificates("default"), ca] }),
    ...(own !== undefined && {
      cert: own.cert,
      key: own.key.reveal(),
      ...(own.passphrase !== undefined && { passphrase: own.passphrase.reveal() }),
    }),
  });
}

import type { Socket } from "node:net";
import type { Provider, ProviderConnection } from "@tokenman/plugin-sdk";
import { Client } from "undici";
import { type Connecting, type Connector, type Lookup, makeConnector } from "./connector.ts";
import { dropContinues } from "./continues.ts";
import { connectionBudget } from "./descriptors.ts";
import { ProxyEnvironment, parseProxy, proxyAuthorization, type UpstreamProxy } from "./proxy.ts";
import { type Target, targetOf } from "./target.ts";
import { Watchdog } from "./watchdog.ts";

/** A connection is not reused after this long, so that a changed DNS record is noticed. */
const MAX_AGE_MS = 10 * 60_000;
const KEEP_ALIVE_MS = 60_000;
/** Idle connections kept at the most, to all origins together. */
const MAX_IDLE = 256;

/** One HTTP/1.1 connection to an origin, used by one request at a time. */
export class Connection {
  readonly client: Client;
  readonly createdAt = performance.now();
  /** Requests that the present socket has carried to their end: more than none means that it is a reused one. */
  served = 0;
  /** Why the present socket failed, where it did rather than being closed. */
  failure: Error | undefined;
  /** A request is out, and nothing of its final reply has come. */
  waiting = false;
  /** The present socket. */
  socket: Socket | undefined;
  readonly headWatch = new Watchdog();
  readonly bodyWatch = new Watchdog();
  /** The socket that is being connected. */
  #connecting: Connecting | undefined;

  constructor(
    origin: string,
    connect: Connector,
    ages: { readonly keepAliveMs: number; readonly maxAgeMs: number },
    closed: (connection: Connection) => void,
  ) {
    this.client = new Client(origin, {
      pipelining: 1,
      keepAliveTimeout: Math.max(1, ages.keepAliveMs),
      keepAliveMaxTimeout: Math.min(MAX_AGE_MS, ages.maxAgeMs),
      maxHeaderSize: 65_536,
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: (options, done) => {
        this.#connecting = connect(options, (error, socket) => {
          this.#connecting = undefined;
          if (error !== null || socket === null) {
            done(error!, null);
            return;
          }
          this.served = 0;
          this.failure = undefined;
          this.socket = socket;
          // Before undici's own listener, which takes a reset for the regular end of a body without a length, and a
          // TLS alert for a peer that closes.
          socket.on("error", (error) => {
            this.failure ??= error;
          });
          dropContinues(socket, this);
          done(null, socket);
        });
      },
    });
    this.client.on("disconnect", () => {
      this.socket = undefined;
      this.headWatch.stop();
      this.bodyWatch.stop();
      closed(this);
    });
    // An idle connection that the peer closes is not an error of anybody's request.
    this.client.on("connectionError", () => {});
  }
  /** Ends it at once; what is under way fails with `reason`. Undici alone would let a socket go on connecting. */
  destroy(reason?: Error): void {
    void this.client.destroy(reason ?? null).catch(() => {});
    this.#connecting?.abandon();
  }
}

/** Whoever waits for a connection. */
export interface Waiting {
  granted(connection: Connection): void;
}

/** The sockets of all origins together, which share the process's file descriptors (FAULTS 34). */
export class Budget {
  open = 0;
  idle = 0;
  readonly #max: number;
  readonly #origins: ReadonlyMap<string, Origin>;

  constructor(max: number, origins: ReadonlyMap<string, Origin>) {
    this.#max = max;
    this.#origins = origins;
  }
  get keeps(): boolean {
    return this.idle < MAX_IDLE;
  }
  /** Makes room for a new connection: an idle one to another origin goes, if there is any. */
  makeRoom(): void {
    if (this.open < this.#max || this.idle === 0) return;
    for (const origin of this.#origins.values()) if (origin.closeOldest()) return;
  }
}

/** How an origin is reached, and how its connections are kept. */
export interface OriginOptions {
  readonly url: string;
  readonly connect: Connector;
  readonly proxy: UpstreamProxy | undefined;
  readonly connection: ProviderConnection;
}

/**
 * The connections to one origin. Own rather than undici's Pool because the kernel must know whether a request went
 * out on a reused socket: only then may a reset before the first byte be tried again (FAULTS 10).
 */
export class Origin {
  readonly url: string;
  /** What each request says to a proxy that it is forwarded by; undefined: it goes to the origin itself. */
  readonly forward: { readonly headers: readonly string[] } | undefined;
  readonly #connect: Connector;
  readonly #budget: Budget;
  readonly #ages: { readonly keepAliveMs: number; readonly maxAgeMs: number };
  readonly #max: number;
  /** Connections that carry a request. */
  #busy = 0;
  readonly #queue: Waiting[] = [];
  #idle: Connection[] = [];
  #closed = false;

  constructor({ url, connect, proxy, connection }: OriginOptions, budget: Budget) {
    this.url = url;
    this.#connect = connect;
    this.#budget = budget;
    this.#ages = {
      keepAliveMs: connection.keepAliveMs ?? KEEP_ALIVE_MS,
      maxAgeMs: (connection.maxAgeMs ?? MAX_AGE_MS) || Number.POSITIVE_INFINITY,
    };
    this.#max = connection.maxConnections || Number.POSITIVE_INFINITY;
    if (proxy?.forwards !== true || !url.startsWith("http:")) return;
    const authorization = proxyAuthorization(proxy);
    this.forward = {
      headers: authorization === undefined ? [] : ["Proxy-Authorization", authorization],
    };
  }
  /** Whether `take` gives a connection now. */
  get free(): boolean {
    return this.#busy < this.#max;
  }
  /** An idle connection, the one used last first, or a new one. To be called only while the origin is free. */
  take(): Connection {
    this.#busy++;
    for (let connection = this.#idle.pop(); connection !== undefined; connection = this.#idle.pop()) {
      this.#budget.idle--;
      if (performance.now() - connection.createdAt < this.#ages.maxAgeMs && !connection.client.destroyed)
        return connection;
      this.#close(connection);
    }
    return this.#make();
  }
  /** A connection as soon as there is one, first come, first served. */
  enqueue(waiting: Waiting): void {
    this.#queue.push(waiting);
  }
  /** Whoever waited does so no longer. */
  dequeue(waiting: Waiting): void {
    const index = this.#queue.indexOf(waiting);
    if (index >= 0) this.#queue.splice(index, 1);
  }
  /** A new connection in the place of one that is in an unknown state. */
  replace(connection: Connection): Connection {
    this.#budget.open--;
    connection.destroy();
    return this.#make();
  }
  /** A request came to its regular end: the connection can carry another one. */
  give(connection: Connection): void {
    connection.served++;
    if (this.#closed || !this.#budget.keeps || this.#ages.keepAliveMs === 0) this.#close(connection);
    else {
      this.#budget.idle++;
      this.#idle.push(connection);
    }
    this.#release();
  }
  /** The connection is in an unknown state. */
  drop(connection: Connection): void {
    this.#budget.open--;
    connection.destroy();
    this.#release();
  }
  close(): void {
    this.#closed = true;
    for (const connection of this.#idle) this.#close(connection);
    this.#budget.idle -= this.#idle.length;
    this.#idle = [];
  }
  /** Closes the connection that has been idle for the longest time. Whether there was one. */
  closeOldest(): boolean {
    const oldest = this.#idle.shift();
    if (oldest === undefined) return false;
    this.#budget.idle--;
    this.#close(oldest);
    return true;
  }

  #make(): Connection {
    this.#budget.makeRoom();
    this.#budget.open++;
    return new Connection(this.url, this.#connect, this.#ages, (connection) => this.#gone(connection));
  }
  #release(): void {
    this.#busy--;
    if (this.#queue.length > 0 && this.free) this.#queue.shift()!.granted(this.take());
  }
  /** A socket closed. If nobody uses the connection, there is nothing left to keep. */
  #gone(connection: Connection): void {
    const index = this.#idle.indexOf(connection);
    if (index < 0) return;
    this.#idle.splice(index, 1);
    this.#budget.idle--;
    this.#close(connection);
  }
  /** Of a connection that carries no request. */
  #close(connection: Connection): void {
    this.#budget.open--;
    void connection.client.close().catch(() => {});
  }
}

export interface ConnectionsOptions {
  /** Where HTTPS_PROXY and its like are looked for. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** In the place of the system's name look-up. */
  readonly lookup?: Lookup;
  /** Sockets at once as far as idle ones can be spared. Default: what the process's file descriptors allow. */
  readonly maxSockets?: number;
}

/** The connections to all origins. They outlive reloads. */
export class Connections {
  readonly #origins = new Map<string, Origin>();
  readonly #targets = new WeakMap<Provider, Target>();
  readonly #budget: Budget;
  readonly #environment: ProxyEnvironment;
  readonly #lookup: Lookup | undefined;

  /** Throws TM_CONFIG_INVALID for a proxy variable that names no proxy. */
  constructor({ env = {}, lookup, maxSockets = connectionBudget() }: ConnectionsOptions = {}) {
    this.#budget = new Budget(maxSockets, this.#origins);
    this.#environment = new ProxyEnvironment(env);
    this.#lookup = lookup;
  }

  /** Where a provider's requests go, worked out once. Throws TM_NO_PROVIDER for one that has no address. */
  to(provider: Provider, streamIdleMs: number): Target {
    let target = this.#targets.get(provider);
    if (target === undefined) {
      target = targetOf(provider, streamIdleMs, (key, url) => this.#origin(provider, key, url));
      this.#targets.set(provider, target);
    }
    return target;
  }
  /** Closes what none of a new generation's providers uses; requests in flight end first. */
  keepOnly(providers: readonly Provider[], streamIdleMs: number): void {
    const kept = new Set<Origin>();
    for (const provider of providers) {
      if (provider.apiBase === undefined) continue;
      try {
        kept.add(this.to(provider, streamIdleMs).origin);
      } catch {
        // A plugin's provider without a proper address: its requests say so.
      }
    }
    for (const [key, origin] of this.#origins) {
      if (kept.has(origin)) continue;
      origin.close();
      this.#origins.delete(key);
    }
  }
  close(): void {
    this.keepOnly([], 0);
  }

  /** Providers of equal address and equal options share their connections, across reloads too. */
  #origin(provider: Provider, key: string, url: URL): Origin {
    let found = this.#origins.get(key);
    if (found === undefined) {
      const connection = provider.connection ?? {};
      const proxy = this.#proxyFor(url, provider.name, connection.proxy);
      const connect = makeConnector({
        connectMs: provider.timeouts.connectMs,
        proxy,
        trust: connection,
        lookup: this.#lookup,
      });
      found = new Origin({ url: url.origin, connect, proxy, connection }, this.#budget);
      this.#origins.set(key, found);
    }
    return found;
  }
  #proxyFor(url: URL, provider: string, chosen: ProviderConnection["proxy"]): UpstreamProxy | undefined {
    if (chosen === undefined) return this.#environment.proxyFor(url);
    return chosen === "none" ? undefined : parseProxy(chosen.reveal(), `providers.${provider}.proxy`);
  }
}

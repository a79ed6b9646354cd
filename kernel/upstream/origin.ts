import type { ProviderConnection } from "@tokenman/plugin-sdk";
import { Connection } from "./connection.ts";
import type { Connector } from "./connector.ts";
import { proxyAuthorization, type UpstreamProxy } from "./proxy.ts";

/** A connection is not reused after this long, so that a changed DNS record is noticed. */
const MAX_AGE_MS = 10 * 60_000;
const KEEP_ALIVE_MS = 60_000;
/** Idle connections kept at the most, to all origins together. */
const MAX_IDLE = 256;

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

import type { Socket } from "node:net";
import { buildConnector, Client } from "undici";
import { dropContinues } from "./continues.ts";
import { connectionBudget } from "./descriptors.ts";
import { Watchdog } from "./watchdog.ts";

/** A connection is not reused after this long, so that a changed DNS record is noticed. */
const MAX_AGE_MS = 10 * 60_000;
const KEEP_ALIVE_MS = 60_000;
/** Idle connections kept at the most, to all origins together. */
const MAX_IDLE = Math.min(256, connectionBudget());

type Connector = ReturnType<typeof buildConnector>;

/** One HTTP/1.1 connection to an origin, used by one request at a time. */
export class Connection {
  readonly client: Client;
  readonly createdAt = performance.now();
  /** Requests that the present socket has carried to their end: more than none means that it is a reused one. */
  served = 0;
  /** The present socket failed, rather than being closed. */
  broken = false;
  /** A request is out, and nothing of its final reply has come. */
  waiting = false;
  readonly headWatch = new Watchdog();
  readonly bodyWatch = new Watchdog();
  /** The socket that is being connected. */
  #connecting: Socket | undefined;

  constructor(origin: string, connect: Connector, closed: (connection: Connection) => void) {
    this.client = new Client(origin, {
      pipelining: 1,
      keepAliveTimeout: KEEP_ALIVE_MS,
      keepAliveMaxTimeout: MAX_AGE_MS,
      maxHeaderSize: 65_536,
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: (options, done) => {
        const connected: Parameters<Connector>[1] = (...[error, socket]) => {
          this.#connecting = undefined;
          if (error !== null) {
            done(error, null);
            return;
          }
          this.served = 0;
          this.broken = false;
          // Before undici's own listener, which takes a reset for the regular end of a body without a length.
          socket.on("error", () => {
            this.broken = true;
          });
          dropContinues(socket, this);
          done(null, socket);
        };
        // Its type does not say so, but it returns the socket.
        this.#connecting = connect(options, connected) as unknown as Socket;
      },
    });
    this.client.on("disconnect", () => {
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
    this.#connecting?.destroy();
  }
}

/**
 * The connections to one origin. Own rather than undici's Pool because the kernel must know whether a request went
 * out on a reused socket: only then may a reset before the first byte be tried again (FAULTS 10).
 */
export class Origin {
  readonly #origin: string;
  readonly #connect: Connector;
  readonly #budget: { idle: number };
  #idle: Connection[] = [];
  #closed = false;

  constructor(origin: string, connectMs: number, budget: { idle: number }) {
    this.#origin = origin;
    this.#budget = budget;
    this.#connect = buildConnector({
      timeout: connectMs,
      allowH2: false,
      keepAlive: true,
      keepAliveInitialDelay: 30_000,
    });
  }
  /** An idle connection, the one used last first, or a new one. `fresh` demands a new one. */
  take(fresh = false): Connection {
    while (!fresh) {
      const connection = this.#idle.pop();
      if (connection === undefined) break;
      this.#budget.idle--;
      if (performance.now() - connection.createdAt < MAX_AGE_MS && !connection.client.destroyed)
        return connection;
      close(connection);
    }
    return new Connection(this.#origin, this.#connect, (connection) => this.#gone(connection));
  }
  /** A request came to its regular end: the connection can carry another one. */
  give(connection: Connection): void {
    connection.served++;
    if (this.#closed || this.#budget.idle >= MAX_IDLE) close(connection);
    else {
      this.#budget.idle++;
      this.#idle.push(connection);
    }
  }
  /** The connection is in an unknown state. */
  drop(connection: Connection): void {
    connection.destroy();
  }
  close(): void {
    this.#closed = true;
    for (const connection of this.#idle) close(connection);
    this.#budget.idle -= this.#idle.length;
    this.#idle = [];
  }

  /** A socket closed. If nobody uses the connection, there is nothing left to keep. */
  #gone(connection: Connection): void {
    const index = this.#idle.indexOf(connection);
    if (index < 0) return;
    this.#idle.splice(index, 1);
    this.#budget.idle--;
    close(connection);
  }
}

function close(connection: Connection): void {
  void connection.client.close().catch(() => {});
}

/** The connections to all origins. They outlive reloads. */
export class Connections {
  readonly #origins = new Map<string, Origin>();
  readonly #budget = { idle: 0 };
  #last: { readonly origin: string; readonly connectMs: number; readonly found: Origin } | undefined;

  to(origin: string, connectMs: number): Origin {
    // Most requests go where the one before them went.
    const last = this.#last;
    if (last !== undefined && last.origin === origin && last.connectMs === connectMs) return last.found;
    const key = `${origin} ${connectMs}`;
    let found = this.#origins.get(key);
    if (found === undefined) {
      found = new Origin(origin, connectMs, this.#budget);
      this.#origins.set(key, found);
    }
    this.#last = { origin, connectMs, found };
    return found;
  }
  /** Closes what no provider of the new generation uses; requests in flight end first. */
  keepOnly(origins: ReadonlySet<string>): void {
    this.#last = undefined;
    for (const [key, origin] of this.#origins) {
      if (origins.has(key.slice(0, key.indexOf(" ")))) continue;
      origin.close();
      this.#origins.delete(key);
    }
  }
  close(): void {
    this.keepOnly(new Set());
  }
}

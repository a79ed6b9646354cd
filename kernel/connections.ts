import { Client } from "undici";

/** A connection is not reused after this long, so that a changed DNS record is noticed. */
const MAX_AGE_MS = 10 * 60_000;
const KEEP_ALIVE_MS = 60_000;
/** Idle connections kept for one origin. */
const MAX_IDLE = 256;

/** One HTTP/1.1 connection to an origin, used by one request at a time. */
export class Connection {
  readonly client: Client;
  readonly createdAt = performance.now();
  /** Requests answered since it was last connected: more than none means that the socket is a reused one. */
  served = 0;

  constructor(client: Client) {
    this.client = client;
    client.on("disconnect", () => {
      this.served = 0;
    });
    // An idle connection that the peer closes is not an error of anybody's request.
    client.on("connectionError", () => {});
  }
  get reused(): boolean {
    return this.served > 0;
  }
}

/**
 * The connections to one origin. Own rather than undici's Pool because the kernel must know whether a request went
 * out on a reused socket: only then may a reset before the first byte be tried again (FAULTS 10).
 */
export class Origin {
  readonly #origin: string;
  readonly #connectMs: number;
  readonly #idle: Connection[] = [];
  #closed = false;
  active = 0;

  constructor(origin: string, connectMs: number) {
    this.#origin = origin;
    this.#connectMs = connectMs;
  }
  /** An idle connection, the one used last first, or a new one. `fresh` demands a new one. */
  take(fresh = false): Connection {
    this.active++;
    while (!fresh) {
      const connection = this.#idle.pop();
      if (connection === undefined) break;
      if (performance.now() - connection.createdAt < MAX_AGE_MS && !connection.client.destroyed)
        return connection;
      void connection.client.close().catch(() => {});
    }
    return new Connection(
      new Client(this.#origin, {
        pipelining: 1,
        allowH2: false,
        keepAliveTimeout: KEEP_ALIVE_MS,
        keepAliveMaxTimeout: MAX_AGE_MS,
        maxHeaderSize: 65_536,
        headersTimeout: 0,
        bodyTimeout: 0,
        connect: { timeout: this.#connectMs, keepAlive: true, keepAliveInitialDelay: 30_000 },
      }),
    );
  }
  give(connection: Connection): void {
    this.active--;
    connection.served++;
    if (this.#closed || this.#idle.length >= MAX_IDLE) void connection.client.close().catch(() => {});
    else this.#idle.push(connection);
  }
  /** The connection is in an unknown state. */
  drop(connection: Connection): void {
    this.active--;
    void connection.client.destroy().catch(() => {});
  }
  close(): void {
    this.#closed = true;
    for (const connection of this.#idle.splice(0)) void connection.client.close().catch(() => {});
  }
}

/** The connections to all origins. They outlive reloads. */
export class Connections {
  readonly #origins = new Map<string, Origin>();

  to(origin: string, connectMs: number): Origin {
    const key = `${origin} ${connectMs}`;
    let found = this.#origins.get(key);
    if (found === undefined) {
      found = new Origin(origin, connectMs);
      this.#origins.set(key, found);
    }
    return found;
  }
  /** Closes what no provider of the new generation uses; requests in flight end first. */
  keepOnly(origins: ReadonlySet<string>): void {
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

import type { Socket } from "node:net";
import Client from "undici/lib/dispatcher/client.js";
import { Watchdog } from "../watchdog.ts";
import type { Connecting, Connector } from "./connector.ts";
import { dropContinues } from "./continues.ts";

/** A server may ask for its connections to be kept for longer than usual, but not for longer than this. */
const MAX_HINTED_MS = 10 * 60_000;

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
  /** How many bytes came first of the last reply. */
  firstRead = 0;
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
      keepAliveMaxTimeout: Math.min(MAX_HINTED_MS, ages.maxAgeMs),
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

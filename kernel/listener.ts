import { readFileSync } from "node:fs";
import http, { type IncomingMessage, type Server, type ServerResponse } from "node:http";
import https from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { headerValue, type Logger, TokenmanError } from "@tokenman/plugin-sdk";
import type { ServerConfig } from "./config/index.ts";
import { connectionBudget } from "./descriptors.ts";
import { Message } from "./message.ts";

const MAX_HEADER_BYTES = 64 * 1024;
/** Node checks header time-outs this often, so this is how exact they are. */
const CHECK_INTERVAL_MS = 1_000;
/** Connections that the system holds until they are accepted. */
const BACKLOG = 1024;
/** How long a client that was answered before its request was complete may go on sending. */
const LINGER_MS = 5_000;
/** How long a client whose bytes are not HTTP may take to read that. */
const REFUSED_MS = 1_000;

/** Node's object for an open socket. It may be sent to another process over an IPC channel. */
export interface SocketHandle {
  close(): void;
}

/** A listening socket that goes, or has come, from one process to another. */
export interface HandedSocket {
  readonly handle: SocketHandle;
  /** What it was opened for: `server.bind_address`, and the configured port, which may be 0. */
  readonly address: string;
  readonly port: number;
}

export interface ListenerOptions {
  readonly name: "proxy" | "dashboard";
  readonly port: number;
  readonly server: ServerConfig;
  readonly log: Logger;
  /** A socket to serve in place of a new one: its port was never closed. */
  readonly handed?: HandedSocket | undefined;
  handle(message: IncomingMessage, response: ServerResponse, expects: boolean): void;
}

/** One listening port. */
export class Listener {
  readonly #options: ListenerOptions;
  readonly #server: Server<typeof Message>;
  /** The response to the last request that came on each connection. */
  readonly #answers = new WeakMap<Duplex, ServerResponse>();
  #dropped = 0;
  #accepts = true;
  #address = "";

  constructor(options: ListenerOptions) {
    this.#options = options;
    const { server } = options;
    const settings: http.ServerOptions<typeof Message> = {
      IncomingMessage: Message,
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: Math.round(server.read_timeout * 1000),
      // A slow upload is legal: its stalls are bounded where the body is read, its length in time is not.
      requestTimeout: 0,
      keepAliveTimeout: Math.round(server.idle_timeout * 1000),
      connectionsCheckingInterval: CHECK_INTERVAL_MS,
      noDelay: true,
      // Other protocols (h2c) are an offer that a server may ignore: the request is good as it is.
      shouldUpgradeCallback: (message) =>
        /^websocket$/i.test(headerValue(message.rawHeaders, "upgrade")?.trim() ?? ""),
    };
    this.#server = server.tls_enabled
      ? https.createServer({ ...settings, ...certificate(server) })
      : http.createServer(settings);
    this.#server.maxHeadersCount = 0;
    this.#server.maxConnections = maxConnections(options);
    this.#server.on(server.tls_enabled ? "secureConnection" : "connection", (socket: Socket) =>
      this.#linger(socket),
    );
    this.#server.on("request", (message, response) => this.#take(message, response, false));
    this.#server.on("checkContinue", (message, response) => this.#take(message, response, true));
    this.#server.on("checkExpectation", (_message, response) => {
      response.writeHead(417, { Connection: "close" });
      response.end();
    });
    this.#server.on("upgrade", (_message, socket) => refuseUpgrade(socket));
    this.#server.on("connect", (_message, socket) => refuseRaw(socket, 405, "Method Not Allowed"));
    this.#server.on("clientError", (cause, socket) => this.#clientError(cause, socket));
    this.#server.on("drop", () => this.#tooMany());
  }

  /** Opens the port. Rejects with TM_PORT_IN_USE or TM_LISTEN. */
  listen(): Promise<void> {
    const { port, server, name, handed } = this.#options;
    return new Promise((resolve, reject) => {
      this.#server.once("error", (cause: NodeJS.ErrnoException) =>
        reject(listenError(cause, name, port, server.bind_address)),
      );
      const opened = (): void => {
        this.#address = this.#reachable();
        this.#server.removeAllListeners("error");
        this.#server.on("error", (cause) =>
          this.#options.log.error({ err: cause, port: name }, "a listening socket failed"),
        );
        resolve();
      };
      if (handed !== undefined) this.#server.listen(handed.handle, BACKLOG, opened);
      else this.#server.listen({ port, host: server.bind_address, backlog: BACKLOG }, opened);
    });
  }
  /** The listening socket, for another process to serve beside this one or after it. Undefined where it is closed. */
  get socket(): HandedSocket | undefined {
    const { port, server } = this.#options;
    // The public way to send a server makes the receiver accept at once, ready or not.
    const { _handle: handle } = this.#server as Server & { readonly _handle?: SocketHandle | null };
    return handle ? { handle, address: server.bind_address, port } : undefined;
  }
  /** "http://127.0.0.1:7677": how this machine reaches the port, or reached it while it was open. "" before. */
  get address(): string {
    return this.#address;
  }
  /**
   * Accepts no further connections. Those there are stay: a request that comes on one is served, and told that it was
   * the last. Resolves when all of them have ended.
   */
  stopAccepting(): Promise<void> {
    this.#accepts = false;
    const ended = new Promise<void>((resolve) => this.#server.once("close", resolve));
    // Server.close() of node:http would also destroy idle keep-alive sockets on which a request may just be arriving.
    (Object.getPrototypeOf(http.Server.prototype) as { close(this: Server): void }).close.call(this.#server);
    return ended;
  }
  closeIdle(): void {
    this.#server.closeIdleConnections();
  }
  destroy(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  #reachable(): string {
    const { port, address, family } = this.#server.address() as AddressInfo;
    const any = address === "0.0.0.0" || address === "::";
    const host = any ? "127.0.0.1" : family === "IPv6" ? `[${address}]` : address;
    return `${this.#options.server.tls_enabled ? "https" : "http"}://${host}:${port}`;
  }

  #take(message: Message, response: ServerResponse, expects: boolean): void {
    message.taken = true;
    this.#answers.set(message.socket, response);
    if (!this.#accepts) response.shouldKeepAlive = false;
    // A response whose client is gone says so by an event that would end the process if nobody listened.
    response.on("error", ignore);
    // The parser lets HTTP/0.9 and HTTP/2.0 through, and chunks in HTTP/1.0, which knows none (RFC 9112 §6.1).
    const isOld = message.httpVersionMajor === 1 && message.httpVersionMinor === 0;
    const isFaulty = isOld && headerValue(message.rawHeaders, "transfer-encoding") !== undefined;
    if (message.httpVersionMajor !== 1 || isFaulty) {
      response.writeHead(isFaulty ? 400 : 505, { Connection: "close" });
      response.end();
      return;
    }
    this.#options.handle(message, response, expects);
  }
  /**
   * Closing a socket on which the client still sends resets the connection, and the reset overtakes the reply: the
   * client would not learn why it was refused. So this side ends, and what still comes is read and dropped for a while.
   */
  #linger(socket: Socket): void {
    const destroySoon = socket.destroySoon.bind(socket);
    socket.destroySoon = () => {
      const message = this.#answers.get(socket)?.req;
      if (message === undefined || message.complete || socket.destroyed) {
        destroySoon();
        return;
      }
      socket.end();
      const bound = setTimeout(() => socket.destroy(), LINGER_MS);
      message.once("close", () => socket.destroy());
      socket.once("close", () => clearTimeout(bound));
    };
  }
  /** What llhttp refuses: the client learns it in HTTP, if it still can, and the connection ends. */
  #clientError(cause: NodeJS.ErrnoException, socket: Duplex): void {
    const answer = this.#answers.get(socket);
    // Once a reply is on its way (or an earlier one of a pipelining client), nothing may be put in the middle of it.
    const isAnswering =
      answer !== undefined && !answer.writableFinished && (answer.headersSent || answer.socket === null);
    if (cause.code === "ECONNRESET" || !socket.writable || isAnswering) socket.destroy();
    else if (cause.code === "HPE_HEADER_OVERFLOW") refuseRaw(socket, 431, "Request Header Fields Too Large");
    else if (cause.code === "ERR_HTTP_REQUEST_TIMEOUT") refuseRaw(socket, 408, "Request Timeout");
    else refuseRaw(socket, 400, "Bad Request");
  }
  #tooMany(): void {
    this.#dropped++;
    // Once for each power of two: a flood must not flood the log.
    if ((this.#dropped & (this.#dropped - 1)) === 0) {
      this.#options.log.warn(
        { port: this.#options.name, dropped: this.#dropped, limit: this.#server.maxConnections },
        "connections over the limit were closed",
      );
    }
  }
}

function certificate(server: ServerConfig): { cert: Buffer; key: Buffer } {
  try {
    return { cert: readFileSync(server.cert_file), key: readFileSync(server.key_file) };
  } catch (cause) {
    throw new TokenmanError(
      "TM_LISTEN",
      `server.cert_file or server.key_file cannot be read: ${(cause as Error).message}`,
      { cause },
    );
  }
}

function maxConnections({ name, server }: ListenerOptions): number {
  const most = connectionBudget();
  if (name === "dashboard") return Math.min(256, most);
  return server.max_connections === 0 ? most : Math.min(server.max_connections, most);
}

export function listenError(
  cause: NodeJS.ErrnoException,
  name: string,
  port: number,
  address: string,
): TokenmanError {
  const where = `${address}:${port}`;
  if (cause.code === "EADDRINUSE") {
    return new TokenmanError(
      "TM_PORT_IN_USE",
      `${where} (server.${name}_port) is in use by another program. Stop it, or choose another port.`,
      { cause },
    );
  }
  return new TokenmanError("TM_LISTEN", `cannot listen on ${where} (server.${name}_port): ${cause.message}`, {
    cause,
  });
}

function refuseUpgrade(socket: Duplex): void {
  const body = JSON.stringify({
    error: { code: "TM_UPGRADE_REQUIRED", message: "WebSocket is not spoken here; use HTTP." },
  });
  refuseRaw(socket, 426, "Upgrade Required", body, "Content-Type: application/json\r\n");
}
function refuseRaw(socket: Duplex, status: number, reason: string, body = "", headers = ""): void {
  socket.on("error", ignore);
  socket.end(
    `HTTP/1.1 ${status} ${reason}\r\n${headers}Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  );
  // The peer may never close its side.
  const bound = setTimeout(() => socket.destroy(), REFUSED_MS);
  socket.once("close", () => clearTimeout(bound));
}
function ignore(): void {}

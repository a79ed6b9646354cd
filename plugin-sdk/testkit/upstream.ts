import net, { type AddressInfo, type Socket } from "node:net";
import tls from "node:tls";
import type { RawHeaders } from "../src/headers.ts";
import { headerValue } from "../src/headers.ts";
import type { ReplyInit } from "../src/reply.ts";
import { type Gate, gate } from "./gate.ts";
import { RequestReader } from "./request-reader.ts";
import { replyBytes, type Script } from "./script.ts";
import { textScript } from "./vendor-reply.ts";

/** A request as it came over the wire. */
export interface RecordedRequest {
  readonly method: string;
  readonly target: string;
  /** name, value, name, value …, with the case, order and duplicates of the wire. */
  readonly headers: RawHeaders;
  /** The request line and the headers, byte for byte. */
  readonly head: Buffer;
  /** What has come of the body so far, freed from chunked coding and nothing else. */
  readonly body: Buffer;
  /** Whether all of it has come. */
  readonly complete: boolean;
  readonly trailers: RawHeaders;
  /** 1 for the first connection that the upstream accepted. */
  readonly connection: number;
  /** The first header of that name, any case. */
  header(name: string): string | undefined;
  /** The body parsed as JSON. Throws SyntaxError. */
  json(): unknown;
}

/** One request being answered: what a {@link Script} is given. */
export interface UpstreamCall {
  readonly request: RecordedRequest;
  /** Resolves when the whole request has come. Rejects when the connection ends before. */
  readonly received: Promise<void>;
  /** Resolves when the peer has ended or reset the connection, or this side has destroyed it. */
  readonly closed: Promise<void>;
  /** For what is not offered here. */
  readonly socket: Socket;
  /** Sends raw bytes, status line and all, in one write. Resolves when the operating system has them. */
  write(bytes: Buffer | string): Promise<void>;
  /** Sends a whole reply, with a Content-Length unless its headers say how the body ends. */
  reply(init: ReplyInit): Promise<void>;
  /** Ends this side cleanly (FIN). */
  end(): Promise<void>;
  /** Resets the connection (RST), at once. What was written may be lost with it: see `write`. */
  reset(): void;
}

export interface UpstreamOptions {
  /** What answers a request for which nothing was queued by `next`. Default: a text in its dialect. */
  readonly script?: Script;
  /** Speaks TLS with this certificate. */
  readonly tls?: { readonly key: string | Buffer; readonly cert: string | Buffer };
}

export interface RecordingUpstream {
  /** "http://127.0.0.1:PORT" (https with `tls`): for a provider's `api_base`. */
  readonly url: string;
  readonly port: number;
  /** In the order in which their heads came. */
  readonly requests: readonly RecordedRequest[];
  /** Connections accepted so far. */
  readonly connections: number;
  /** Connections open now. */
  readonly open: number;
  /** Answers all requests for which nothing is queued. */
  script(script: Script): void;
  /** Queues scripts: each answers one request, in the order of arrival. */
  next(...scripts: readonly Script[]): void;
  /** The request number `number` (1 is the first), as soon as its head has come. */
  arrival(number: number): Promise<RecordedRequest>;
  /** The same, as soon as it has come whole. Rejects if it never will. */
  request(number: number): Promise<RecordedRequest>;
  /** The last request that came whole. Throws RangeError where there is none. */
  last(): RecordedRequest;
  /** Failures of scripts. A connection that the peer closed under a script is none. */
  readonly failures: readonly unknown[];
  /** Destroys what is open and frees the port. */
  stop(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** An HTTP/1.1 server on a free loopback port that records every byte it gets and answers by script. */
export async function recordingUpstream(options: UpstreamOptions = {}): Promise<RecordingUpstream> {
  const upstream = new Upstream(options);
  await upstream.listen();
  return upstream;
}

class Upstream implements RecordingUpstream {
  readonly requests: Recorded[] = [];
  readonly failures: unknown[] = [];
  connections = 0;
  readonly #server: net.Server;
  readonly #scheme: string;
  readonly #sockets = new Set<Socket>();
  readonly #queue: Script[] = [];
  readonly #arrivals: Gate<Recorded>[] = [];
  #default: Script;

  constructor(options: UpstreamOptions) {
    this.#default = options.script ?? textScript();
    this.#scheme = options.tls === undefined ? "http" : "https";
    const accept = (socket: Socket): void => this.#accept(socket);
    // A peer that has sent FIN may still read: its connection is closed when the script is through.
    this.#server =
      options.tls === undefined
        ? net.createServer({ allowHalfOpen: true, noDelay: true }, accept)
        : tls.createServer({ ...options.tls, allowHalfOpen: true, ALPNProtocols: ["http/1.1"] }, accept);
    this.#server.on("tlsClientError", () => {});
    // Below TLS too: a handshake that failed leaves a connection that nobody else closes.
    this.#server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
    });
  }
  async listen(): Promise<void> {
    const listening = gate();
    this.#server.once("error", listening.fail);
    this.#server.listen(0, "127.0.0.1", () => listening.open());
    await listening.opened;
  }
  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }
  get url(): string {
    return `${this.#scheme}://${this.#scheme === "https" ? "localhost" : "127.0.0.1"}:${this.port}`;
  }
  get open(): number {
    return this.#sockets.size;
  }
  script(script: Script): void {
    this.#default = script;
  }
  next(...scripts: readonly Script[]): void {
    this.#queue.push(...scripts);
  }
  arrival(number: number): Promise<Recorded> {
    const index = number - 1;
    this.#arrivals[index] ??= gate<Recorded>();
    return this.#arrivals[index].opened;
  }
  async request(number: number): Promise<Recorded> {
    const recorded = await this.arrival(number);
    await recorded.whole.opened;
    return recorded;
  }
  last(): Recorded {
    const found = this.requests.findLast((request) => request.complete);
    if (found === undefined) throw new RangeError("no request has come whole");
    return found;
  }
  async stop(): Promise<void> {
    const closed = gate();
    this.#server.close(() => closed.open());
    for (const socket of this.#sockets) socket.destroy();
    await closed.opened;
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }

  #accept(socket: Socket): void {
    const connection = ++this.connections;
    const closed = gate();
    let current: Recorded | undefined;
    // Requests of one connection are answered one after the other, as HTTP/1.1 demands.
    let turn = Promise.resolve();
    socket.on("error", () => {});
    const left = (): void => {
      current?.whole.fail(new Error("the connection ended before the request was complete"));
      closed.open();
    };
    socket.on("end", () => {
      left();
      void turn.then(() => socket.end());
    });
    socket.on("close", left);
    const reader = new RequestReader({
      head: (head) => {
        const recorded = new Recorded(head, connection);
        current = recorded;
        const number = this.requests.push(recorded);
        const script = this.#queue.shift() ?? this.#default;
        turn = turn.then(() => this.#answer(script, callOf(recorded, socket, closed.opened)));
        this.#arrivals[number - 1] ??= gate<Recorded>();
        this.#arrivals[number - 1]!.open(recorded);
      },
      body: (chunk) => current!.chunks.push(chunk),
      end: (trailers) => {
        const done = current!;
        done.trailers = trailers;
        done.complete = true;
        done.whole.open();
      },
    });
    socket.on("data", (chunk: Buffer) => {
      try {
        reader.push(chunk);
      } catch (cause) {
        this.failures.push(cause);
        socket.destroy();
      }
    });
  }
  async #answer(script: Script, call: UpstreamCall): Promise<void> {
    try {
      await script(call);
    } catch (cause) {
      if (call.socket.destroyed || call.socket.writableEnded) return;
      this.failures.push(cause);
      call.socket.destroy();
    }
  }
}

class Recorded implements RecordedRequest {
  readonly method: string;
  readonly target: string;
  readonly headers: RawHeaders;
  readonly head: Buffer;
  readonly connection: number;
  trailers: RawHeaders = [];
  complete = false;
  chunks: Buffer[] = [];
  readonly whole = gate();

  constructor(
    head: {
      readonly method: string;
      readonly target: string;
      readonly headers: RawHeaders;
      readonly bytes: Buffer;
    },
    connection: number,
  ) {
    this.method = head.method;
    this.target = head.target;
    this.headers = head.headers;
    this.head = head.bytes;
    this.connection = connection;
  }
  get body(): Buffer {
    if (this.chunks.length !== 1) this.chunks = [Buffer.concat(this.chunks)];
    return this.chunks[0]!;
  }
  header(name: string): string | undefined {
    return headerValue(this.headers, name);
  }
  json(): unknown {
    return JSON.parse(this.body.toString("utf8"));
  }
}

function callOf(request: Recorded, socket: Socket, closed: Promise<void>): UpstreamCall {
  const write = (bytes: Buffer | string): Promise<void> =>
    new Promise((resolve, reject) => {
      socket.write(bytes, (cause) => (cause ? reject(cause) : resolve()));
    });
  return {
    request,
    received: request.whole.opened,
    closed,
    socket,
    write,
    async reply(init) {
      for await (const bytes of replyBytes(init)) await write(bytes);
    },
    end: () => new Promise((resolve) => void socket.end(() => resolve())),
    reset: () => void socket.resetAndDestroy(),
  };
}

import { once } from "node:events";
import http, { type IncomingMessage, type ServerResponse } from "node:http";
import https from "node:https";
import type { AddressInfo, Socket } from "node:net";
import {
  errorEvent,
  errorReply,
  type Random,
  selfSigned,
  streamReply,
  textReply,
} from "@tokenman/plugin-sdk/testkit";

/** What a provider does to one request. */
export type Doing = "fine" | "slow" | "cut" | "reset" | "overloaded" | "limited" | "broken" | "first-event";

/** Those whose answer has begun: nobody may ask for it again. */
export const BEGUN: ReadonlySet<Doing> = new Set(["fine", "slow", "cut"]);

/** How often each happens on a day like any other, in parts of a hundred; the rest is fine. */
const USUAL: readonly (readonly [Doing, number])[] = [
  ["slow", 3],
  ["cut", 1],
  ["reset", 3],
  ["overloaded", 3],
  ["limited", 3],
  ["broken", 2],
  ["first-event", 2],
];
const SLOW_MS = 700;

export const STREAM = Buffer.from(streamReply("anthropic-messages", ["Hello ", "there."]).body as Buffer);
export const WHOLE = textReply("anthropic-messages", "Hello there.").body as string;
const FAILED_EVENT = errorEvent("anthropic-messages");

/** One of the providers: it answers by chance, has storms in which nearly all fails alike, and can be down. */
export class ChaosProvider {
  storm: Doing | undefined;
  readonly #random: Random;
  readonly #told: (id: string, doing: Doing) => void;
  readonly #sockets = new Set<Socket>();
  #server: http.Server | undefined;
  #port = 0;

  /** `told` hears of each request, by the id in its header, before anything is answered. */
  constructor(random: Random, told: (id: string, doing: Doing) => void) {
    this.#random = random;
    this.#told = told;
  }
  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }
  /** Comes up, on the same port as before. */
  async start(): Promise<void> {
    this.#server = http.createServer((request, response) => void this.#serve(request, response));
    this.#server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
      socket.on("error", () => {});
    });
    this.#server.listen(this.#port, "127.0.0.1");
    await once(this.#server, "listening");
    this.#port = (this.#server.address() as AddressInfo).port;
  }
  /** Goes down: connections are refused, and what was under way is reset. */
  async stop(): Promise<void> {
    const closed = once(this.#server!, "close");
    this.#server!.close();
    for (const socket of this.#sockets) socket.resetAndDestroy();
    await closed;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    try {
      for await (const chunk of request) chunks.push(chunk as Buffer);
    } catch {
      return;
    }
    const isStream = Buffer.concat(chunks).includes('"stream":true');
    const doing = this.#decide();
    this.#told(String(request.headers["x-chaos-id"]), doing);
    const type = isStream ? "text/event-stream" : "application/json";
    const body = isStream ? STREAM : WHOLE;
    switch (doing) {
      case "fine":
        response.writeHead(200, { "content-type": type }).end(body);
        return;
      case "slow":
        setTimeout(
          () => response.writeHead(200, { "content-type": type }).end(body),
          SLOW_MS * this.#random.next(),
        );
        return;
      case "cut": {
        response.writeHead(200, { "content-type": type, "content-length": body.length });
        // What was written must have left before the reset takes the rest with it.
        const half = body.slice(0, body.length / 2);
        response.write(half, () => setTimeout(() => request.socket.resetAndDestroy(), 20));
        return;
      }
      case "reset":
        request.socket.resetAndDestroy();
        return;
      case "first-event":
        if (isStream) response.writeHead(200, { "content-type": type }).end(FAILED_EVENT);
        else answer(response, 500);
        return;
      case "overloaded":
        answer(response, 529);
        return;
      case "limited":
        answer(response, 429, { "retry-after": String(this.#random.below(3)) });
        return;
      case "broken":
        response.writeHead(502, { "content-type": "text/html" }).end("<html>502</html>");
    }
  }
  #decide(): Doing {
    if (this.storm !== undefined && this.#random.chance(0.9)) return this.storm;
    let chance = this.#random.next() * 100;
    for (const [doing, share] of USUAL) {
      chance -= share;
      if (chance < 0) return doing;
    }
    return "fine";
  }
}

function answer(response: ServerResponse, status: number, headers: http.OutgoingHttpHeaders = {}): void {
  const body = errorReply("anthropic-messages", status).body as string;
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(body);
}

/** A server whose certificate nobody trusts. */
export async function untrusted(): Promise<{ readonly url: string; close(): void }> {
  const server = https.createServer(selfSigned(), (_request, response) => void response.end());
  server.on("tlsClientError", () => {});
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return { url: `https://127.0.0.1:${port}`, close: () => void server.close() };
}

import net, { type Socket } from "node:net";

/** A TCP connection that says exactly what it is told to, and keeps every byte it gets. */
export interface RawClient {
  readonly socket: Socket;
  /** All that came so far, as Latin-1. */
  readonly text: string;
  readonly bytes: Buffer;
  /** Resolves when the operating system has the bytes; also where the peer is gone. */
  send(bytes: Buffer | string): Promise<void>;
  /** Resolves with all that came, once it includes `part` or satisfies it. Rejects where the connection ends before. */
  until(part: string | ((text: string) => boolean)): Promise<string>;
  /** How the peer ended the connection: cleanly (FIN), or by a reset. */
  readonly ended: Promise<"end" | "reset">;
  /** Leaves without a word: FIN where all was read, else a reset. */
  leave(): void;
}

/** Connects to a base URL. Nothing is read before `resume` where `paused` is set. */
export async function rawClient(
  base: string,
  options: { readonly paused?: boolean } = {},
): Promise<RawClient> {
  const { hostname, port } = new URL(base);
  const socket = net.connect({ host: hostname, port: Number(port), noDelay: true });
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", reject);
  });
  const chunks: Buffer[] = [];
  const waiting = new Set<() => void>();
  const wake = (): void => {
    for (const look of waiting) look();
  };
  let over: "end" | "reset" | undefined;
  const ended = new Promise<"end" | "reset">((resolve) => {
    socket.on("end", () => {
      over ??= "end";
    });
    socket.on("error", () => {
      over ??= "reset";
    });
    socket.on("close", () => {
      over ??= "end";
      wake();
      resolve(over);
    });
  });
  socket.on("data", (chunk) => {
    chunks.push(chunk as Buffer);
    wake();
  });
  if (options.paused === true) socket.pause();
  const bytes = (): Buffer => Buffer.concat(chunks);
  return {
    socket,
    ended,
    get text() {
      return bytes().toString("latin1");
    },
    get bytes() {
      return bytes();
    },
    send: (data) => new Promise((resolve) => void socket.write(data, () => resolve())),
    until(part) {
      return new Promise((resolve, reject) => {
        const look = (): void => {
          const text = bytes().toString("latin1");
          if (typeof part === "string" ? text.includes(part) : part(text)) {
            waiting.delete(look);
            resolve(text);
          } else if (over !== undefined && socket.destroyed) {
            waiting.delete(look);
            reject(new Error(`the connection ended (${over}) after ${JSON.stringify(text.slice(0, 2_000))}`));
          }
        };
        waiting.add(look);
        look();
      });
    },
    leave: () => void socket.destroy(),
  };
}

export interface RawRequest {
  readonly method?: string;
  readonly target?: string;
  /** Field lines after Host, without line ends. */
  readonly headers?: readonly string[];
  readonly body?: Buffer | string;
  readonly version?: string;
}

/** A request as bytes, for a server on this machine; a Content-Length is added where there is a body. */
export function requestBytes(request: RawRequest = {}): Buffer {
  const { method = "POST", target = "/v1/messages", headers = [], body = "", version = "1.1" } = request;
  const bytes = Buffer.from(body as string);
  const framed = headers.some((line) => /^(content-length|transfer-encoding):/i.test(line));
  const length = bytes.length > 0 && !framed ? [`Content-Length: ${bytes.length}`] : [];
  const lines = [`${method} ${target} HTTP/${version}`, "Host: localhost", ...headers, ...length, "", ""];
  return Buffer.concat([Buffer.from(lines.join("\r\n"), "latin1"), bytes]);
}

/** Whether a text holds a whole reply in chunked coding. */
export function isWholeChunked(text: string): boolean {
  return text.endsWith("\r\n0\r\n\r\n");
}

/** The status of the first reply in a text. */
export function statusOf(text: string): number {
  return Number(/^HTTP\/1\.1 (\d{3}) /.exec(text)?.[1] ?? 0);
}

/** What stands after the head of the first reply. */
export function bodyText(text: string): string {
  return text.slice(text.indexOf("\r\n\r\n") + 4);
}

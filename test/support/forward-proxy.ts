import http, { type IncomingMessage } from "node:http";
import net, { type AddressInfo, type Socket } from "node:net";

/** What a proxy was asked. */
export interface Asked {
  readonly method: string;
  /** `host:port` of a tunnel, the whole URL of a request that is forwarded. */
  readonly target: string;
  readonly headers: readonly string[];
}

/** An HTTP proxy on loopback: it tunnels, and forwards plain HTTP. */
export interface ForwardProxy {
  readonly host: string;
  readonly asked: readonly Asked[];
  /** Tunnels open now. */
  readonly open: number;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface ForwardProxyOptions {
  /** "user:password" that it demands. */
  readonly login?: string;
  /** Where a host leads: the port on this machine. Others get a 502. */
  readonly hosts: Readonly<Record<string, number>>;
  /** What it answers to everything, in the place of its work. */
  readonly answer?: string;
}

export async function forwardProxy(options: ForwardProxyOptions): Promise<ForwardProxy> {
  const asked: Asked[] = [];
  const sockets = new Set<Socket>();
  const tunnels = new Set<Socket>();
  const expected =
    options.login === undefined ? undefined : `Basic ${Buffer.from(options.login).toString("base64")}`;
  const admits = (request: IncomingMessage): boolean =>
    expected === undefined || request.headers["proxy-authorization"] === expected;
  const note = ({ method = "", url = "", rawHeaders }: IncomingMessage): void => {
    asked.push({ method, target: url, headers: rawHeaders });
  };
  const server = http.createServer((request, response) => {
    note(request);
    if (!admits(request)) {
      response.writeHead(407, { "proxy-authenticate": "Basic" }).end("no");
      return;
    }
    const url = new URL(request.url!);
    const port = options.hosts[url.host];
    if (port === undefined) {
      response.writeHead(502).end();
      return;
    }
    const headers = request.rawHeaders.filter(
      (_, index, all) => all[index - (index % 2)]!.toLowerCase() !== "proxy-authorization",
    );
    const onward = http.request(
      { port, host: "127.0.0.1", method: request.method, path: url.pathname + url.search, headers },
      (reply) => {
        response.writeHead(reply.statusCode!, reply.rawHeaders);
        reply.pipe(response);
      },
    );
    request.pipe(onward);
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
  });
  server.on("connect", (request: IncomingMessage, socket: Socket, head: Buffer) => {
    note(request);
    const port = options.hosts[request.url!];
    if (options.answer !== undefined) socket.end(options.answer);
    else if (!admits(request)) socket.end("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
    else if (port === undefined) socket.end("HTTP/1.1 502 Bad Gateway\r\n\r\n");
    else {
      const onward = net.connect(port, "127.0.0.1", () => {
        socket.write("HTTP/1.1 200 Connection Established\r\nVia: 1.1 test\r\n\r\n");
        onward.write(head);
        onward.pipe(socket).pipe(onward);
      });
      tunnels.add(onward);
      onward.on("error", () => socket.destroy());
      onward.on("close", () => {
        tunnels.delete(onward);
        socket.destroy();
      });
      socket.on("close", () => onward.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    get open() {
      return tunnels.size;
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of [...sockets, ...tunnels]) socket.destroy();
      await closed;
    },
  };
}

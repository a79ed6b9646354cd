import { isIP, type Socket } from "node:net";
import { TokenmanError } from "@tokenman/plugin-sdk";
import type { Destination } from "./connector.ts";
import { proxyAuthorization, type UpstreamProxy } from "./proxy.ts";

/** What a proxy may say before the tunnel stands. */
const MAX_HEAD_BYTES = 16 * 1024;
const END_OF_HEAD = "\r\n\r\n";
const NOTHING: Buffer = Buffer.alloc(0);

/** Hears of the end: undefined where the tunnel stands, and the socket now leads to the destination. */
type Done = (refused: Error | undefined) => void;

/** Asks the proxy at the other end of `socket` for a tunnel. Whoever gives up destroys the socket. */
export function tunnelThrough(proxy: UpstreamProxy, socket: Socket, to: Destination, done: Done): void {
  const port = Number(to.port || (to.protocol === "https:" ? 443 : 80));
  if (proxy.kind === "socks") void converse(socket, socksDialog(proxy, to.hostname, port), done);
  else void converse(socket, connectDialog(proxy, to.hostname, port), done);
}

/**
 * A dialog with a proxy: yields what it says, and gets back all that has come and was not used, as often as something
 * came. It returns the bytes that are the tunnel's, and throws where the proxy refuses.
 */
type Dialog = Generator<Buffer | undefined, Buffer, Buffer>;

function converse(socket: Socket, dialog: Dialog, done: Done): void {
  let came: Buffer = NOTHING;
  const end = (refused: Error | undefined): void => {
    socket.off("readable", step).off("error", failed).off("close", closed).off("end", closed);
    done(refused);
  };
  const failed = (cause: Error): void => end(cause);
  const closed = (): void =>
    end(
      new TokenmanError("TM_UPSTREAM_CONNECT", "the proxy closed the connection before there was a tunnel"),
    );
  const step = (): void => {
    try {
      for (;;) {
        const next = dialog.next(came);
        came = NOTHING;
        if (next.done === true) {
          if (next.value.length > 0) socket.unshift(next.value);
          end(undefined);
          return;
        }
        if (next.value !== undefined) socket.write(next.value);
        const chunk = socket.read() as Buffer | null;
        if (chunk === null) return;
        came = chunk;
      }
    } catch (cause) {
      end(cause as Error);
    }
  };
  socket.on("readable", step).on("error", failed).on("close", closed).on("end", closed);
  step();
}

/** CONNECT (RFC 9110 §9.3.6). */
function* connectDialog(proxy: UpstreamProxy, hostname: string, port: number): Dialog {
  const authority = `${isIP(hostname) === 6 ? `[${hostname}]` : hostname}:${port}`;
  const authorization = proxyAuthorization(proxy);
  const credential = authorization === undefined ? "" : `Proxy-Authorization: ${authorization}\r\n`;
  let held: Buffer = yield Buffer.from(
    `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${credential}\r\n`,
  );
  for (;;) {
    const end = held.indexOf(END_OF_HEAD);
    if (end < 0) {
      if (held.length > MAX_HEAD_BYTES) throw refusal("what the proxy answered is not HTTP");
      held = Buffer.concat([held, yield]);
      continue;
    }
    const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(held.toString("latin1", 0, end))?.[1] ?? 0);
    held = held.subarray(end + END_OF_HEAD.length);
    if (status >= 200 && status < 300) return held;
    if (status >= 100 && status < 200) continue;
    const said = status === 0 ? "something that is not HTTP" : `${status} to CONNECT`;
    // It was willing, and did not get through.
    if (status >= 500)
      throw new TokenmanError(
        "TM_UPSTREAM_CONNECT",
        `the proxy answered ${said}: the provider is not reached`,
      );
    throw refusal(`the proxy answered ${said}${status === 407 ? ": it wants another user or password" : ""}`);
  }
}

const SOCKS_SAYS: Readonly<Record<number, string>> = {
  2: "it does not let this connection through",
  3: "network unreachable",
  4: "host unreachable",
  5: "connection refused",
  6: "connection timed out",
};

/** SOCKS 5 (RFC 1928), with user and password where there are any (RFC 1929). The proxy resolves names. */
function* socksDialog({ user, password }: UpstreamProxy, hostname: string, port: number): Dialog {
  const withPassword = user !== "" || password !== "";
  const reader = new SocksReader();
  const [, method] = yield* reader.take(2, Buffer.from(withPassword ? [5, 2, 0, 2] : [5, 1, 0]));
  if (method === 2 && withPassword) {
    const [, status] = yield* reader.take(2, Buffer.concat([Buffer.from([1]), sized(user), sized(password)]));
    if (status !== 0) throw refusal("the proxy refused the user or the password");
  } else if (method !== 0) throw refusal("the proxy wants another way of logging in, or is no SOCKS 5 proxy");
  const family = isIP(hostname);
  const address =
    family === 0
      ? Buffer.concat([Buffer.from([3]), sized(hostname)])
      : Buffer.concat([Buffer.from([family === 4 ? 1 : 4]), addressBytes(hostname, family)]);
  const ports = Buffer.from([port >> 8, port & 0xff]);
  const reply = yield* reader.take(4, Buffer.concat([Buffer.from([5, 1, 0]), address, ports]));
  const status = reply[1]!;
  if (status !== 0) {
    const said = `the proxy answered ${SOCKS_SAYS[status] ?? `SOCKS error ${status}`}`;
    throw status === 2 ? refusal(said) : new TokenmanError("TM_UPSTREAM_CONNECT", said);
  }
  const kind = reply[3];
  const length = kind === 1 ? 4 : kind === 4 ? 16 : (yield* reader.take(1))[0]!;
  yield* reader.take(length + 2);
  return reader.rest;
}

/** Bytes in the order in which they came, as many as are asked for. */
class SocksReader {
  rest = NOTHING;

  *take(count: number, say?: Buffer): Generator<Buffer | undefined, Buffer, Buffer> {
    if (say !== undefined) this.rest = Buffer.concat([this.rest, yield say]);
    while (this.rest.length < count) this.rest = Buffer.concat([this.rest, yield]);
    const taken = this.rest.subarray(0, count);
    this.rest = this.rest.subarray(count);
    return taken;
  }
}

function sized(text: string): Buffer {
  const bytes = Buffer.from(text);
  if (bytes.length > 255) throw refusal("its user, its password or the host is too long for SOCKS 5");
  return Buffer.concat([Buffer.from([bytes.length]), bytes]);
}

function addressBytes(address: string, family: number): Buffer {
  if (family === 4) return Buffer.from(address.split(".").map(Number));
  const [head = "", tail] = address.split("::");
  const words = (part: string): number[] =>
    part.split(":").flatMap((word) => (word === "" ? [] : [Number.parseInt(word, 16)]));
  const before = words(head);
  const after = tail === undefined ? [] : words(tail);
  const all = [...before, ...Array<number>(8 - before.length - after.length).fill(0), ...after];
  return Buffer.from(all.flatMap((word) => [word >> 8, word & 0xff]));
}

function refusal(message: string): TokenmanError {
  return new TokenmanError("TM_UPSTREAM_PROXY", message);
}

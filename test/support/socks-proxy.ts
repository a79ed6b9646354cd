import net, { type AddressInfo, type Socket } from "node:net";

/** A SOCKS 5 proxy on loopback that leads everything to one port. */
export interface SocksProxy {
  readonly host: string;
  /** What it was asked: kind of address, address and port; and the login. */
  readonly asked: readonly string[];
  [Symbol.asyncDispose](): Promise<void>;
}

/** `status` other than 0 refuses. It answers one byte at a time, as a slow network may. */
export async function socksProxy(port: number, login?: string, status = 0): Promise<SocksProxy> {
  const asked: string[] = [];
  const sockets = new Set<Socket>();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    void serve(socket).catch(() => socket.destroy());
  });
  const serve = async (socket: Socket): Promise<void> => {
    const read = async (count: number): Promise<Buffer> => {
      for (;;) {
        const bytes = socket.read(count) as Buffer | null;
        if (bytes !== null) return bytes;
        await new Promise((resolve) => socket.once("readable", resolve));
      }
    };
    const say = async (bytes: readonly number[]): Promise<void> => {
      for (const byte of bytes) await new Promise((resolve) => socket.write(Buffer.from([byte]), resolve));
    };
    const [, methods = 0] = await read(2);
    const offered = [...(await read(methods))];
    const method = login === undefined ? 0 : 2;
    if (!offered.includes(method)) return void socket.end(Buffer.from([5, 255]));
    await say([5, method]);
    if (login !== undefined) {
      await read(1);
      const user = (await read((await read(1))[0]!)).toString();
      const password = (await read((await read(1))[0]!)).toString();
      asked.push(`${user}:${password}`);
      if (`${user}:${password}` !== login) return void (await say([1, 1]));
      await say([1, 0]);
    }
    const kind = (await read(4))[3]!;
    const address = kind === 3 ? await read((await read(1))[0]!) : await read(kind === 1 ? 4 : 16);
    const wanted = (await read(2)).readUInt16BE();
    asked.push(`${kind} ${kind === 3 ? address.toString() : address.toString("hex")} ${wanted}`);
    await say([5, status, 0, 1, 0, 0, 0, 0, 0, 0]);
    if (status !== 0) return;
    const onward = net.connect(port, "127.0.0.1");
    sockets.add(onward);
    onward.on("error", () => socket.destroy());
    onward.pipe(socket).pipe(onward);
    socket.on("close", () => onward.destroy());
  };
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

import type { Socket } from "node:net";

const CONTINUE = Buffer.from("HTTP/1.1 100");
const END_OF_HEAD = "\r\n\r\n";

/**
 * Takes every "100 Continue" before a reply out of what is read from a socket. A server may send one that nobody asked
 * for (RFC 9110 §15.2), and undici takes that for a broken reply. Bytes are only looked at while `reply.waiting`;
 * `reply.firstRead` tells how many came at once then.
 */
export function dropContinues(socket: Socket, reply: { readonly waiting: boolean; firstRead: number }): void {
  const read: (size?: number) => Buffer | null = socket.read.bind(socket);
  let held: Buffer | undefined;
  socket.read = (size?: number): Buffer | null => {
    for (;;) {
      let chunk = read(size);
      if (chunk === null || (!reply.waiting && held === undefined)) return chunk;
      reply.firstRead = chunk.length;
      // "HTTP/1.1 1…": nearly every reply is told from one by this byte.
      if (held === undefined && chunk[9] !== 0x31) return chunk;
      if (held !== undefined) chunk = Buffer.concat([held, chunk]);
      held = undefined;
      let at = 0;
      while (chunk.subarray(at, at + CONTINUE.length).equals(CONTINUE)) {
        const end = chunk.indexOf(END_OF_HEAD, at);
        if (end < 0) {
          held = chunk.subarray(at);
          break;
        }
        at = end + END_OF_HEAD.length;
      }
      if (held === undefined && at < chunk.length) return chunk.subarray(at);
    }
  };
}

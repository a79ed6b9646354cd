import type { Socket } from "node:net";

/**
 * Notices a provider that stops taking a request: bytes wait in the socket, and none has left it for `idleMs`. While
 * none waits the provider is not to blame. Node's socket time-out does the counting: it knows what the system has taken
 * of a large write.
 */
export class UploadWatch {
  readonly #socket: Socket;
  readonly #expired: () => void;

  constructor(socket: Socket, idleMs: number, stalled: () => void) {
    this.#socket = socket;
    this.#expired = () => {
      if (socket.writableLength > 0) stalled();
    };
    socket.setTimeout(idleMs, this.#expired);
  }
  /** May be called more than once. */
  stop(): void {
    this.#socket.setTimeout(0, this.#expired);
  }
}

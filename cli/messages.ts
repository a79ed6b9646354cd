/** What an instance tells the process that started it, over Node's IPC channel. */
export type StartMessage =
  /** A successor is loaded, and wants the listening sockets. */
  | { readonly kind: "prepared" }
  /** It serves. */
  | { readonly kind: "ready"; readonly proxy: string; readonly dashboard: string; readonly version: string }
  /** A successor is the instance now: the PID file says so. */
  | { readonly kind: "installed" }
  /** What a person is to read, and the code to exit with. */
  | { readonly kind: "failed"; readonly text: string; readonly exit: number };

/**
 * What an instance tells its successor. Two versions of TokenMan talk here: what is added must be left out of account by
 * a reader that does not know it.
 */
export type HandOverMessage =
  /** With the socket's handle. */
  | {
      readonly kind: "socket";
      readonly name: "proxy" | "dashboard";
      readonly address: string;
      readonly port: number;
    }
  /** Both serve; now the successor becomes the instance. */
  | { readonly kind: "yours" };

/** Tells the process that started this one, where it did so over a channel. Resolves when it is sent, or nobody listens. */
export async function tell(message: StartMessage): Promise<void> {
  if (!process.connected) return;
  const sent = Promise.withResolvers<void>();
  // An error says that the starter is gone: nobody is left to tell.
  const send = process.send as (message: StartMessage, done: (error: Error | null) => void) => boolean;
  send.call(process, message, () => sent.resolve());
  await sent.promise;
}

/** Tells the process that started this one for the last time, and lets go of it. */
export async function tellStarter(message: StartMessage): Promise<void> {
  await tell(message);
  if (process.connected) process.disconnect?.();
}

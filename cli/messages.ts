/** What the instance tells the process that started it in the background, over Node's IPC channel. */
export type StartMessage =
  | { readonly kind: "ready"; readonly proxy: string; readonly dashboard: string }
  /** What a person is to read, and the code to exit with. */
  | { readonly kind: "failed"; readonly text: string; readonly exit: number };

/** Tells the process that started this one, if it did so in the background, and lets go of it. */
export async function tellStarter(message: StartMessage): Promise<void> {
  if (!process.connected) return;
  const sent = Promise.withResolvers<void>();
  // An error says that the starter is gone: nobody is left to tell.
  const send = process.send as (message: StartMessage, done: (error: Error | null) => void) => boolean;
  send.call(process, message, () => sent.resolve());
  await sent.promise;
  if (process.connected) process.disconnect?.();
}

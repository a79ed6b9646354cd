/**
 * Settles as `work` does, or rejects with what `late` makes once `ms` have passed. What `work` does after that is
 * nobody's: its rejection is swallowed here and not reported as stray.
 */
export async function within<T>(ms: number, work: T | PromiseLike<T>, late: () => Error): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const expiry = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(late()), ms);
  });
  try {
    return await Promise.race([work, expiry]);
  } finally {
    clearTimeout(timer);
  }
}

/** Whether `work` came to its end within `ms`. Rejects where it does. */
export async function inTime(ms: number, work: Promise<unknown>): Promise<boolean> {
  const late = new Error();
  try {
    await within(ms, work, () => late);
    return true;
  } catch (cause) {
    if (cause === late) return false;
    throw cause;
  }
}

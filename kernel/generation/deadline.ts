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

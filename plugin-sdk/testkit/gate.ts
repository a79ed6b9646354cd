/** A promise that a test settles: what waits for it goes on when the test says so, and no clock is involved. */
export interface Gate<T = void> {
  readonly opened: Promise<T>;
  open(value: T): void;
  /** Whatever waits is rejected. */
  fail(cause: Error): void;
}

export function gate<T = void>(): Gate<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  // A gate that nobody waits for yet may fail: that is no stray rejection.
  promise.catch(() => {});
  return { opened: promise, open: resolve, fail: reject };
}

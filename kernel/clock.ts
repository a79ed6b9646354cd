/** A time-out that can be held: the time in `ex.wait` does not count against a plugin. */
export interface HookClock {
  hold(): void;
  go(): void;
  stop(): void;
}

/** A clock of `ms` milliseconds of running time, monotonic. 0 never expires. */
export function startClock(ms: number, expired: () => void): HookClock {
  if (ms <= 0) return { hold() {}, go() {}, stop() {} };
  let left = ms;
  let holds = 0;
  let since = performance.now();
  let timer: NodeJS.Timeout | undefined = setTimeout(expired, left);
  return {
    hold() {
      if (holds++ > 0 || timer === undefined) return;
      clearTimeout(timer);
      left -= performance.now() - since;
    },
    go() {
      if (--holds > 0 || timer === undefined) return;
      since = performance.now();
      timer = setTimeout(expired, Math.max(0, left));
    },
    stop() {
      clearTimeout(timer);
      timer = undefined;
    },
  };
}

/** A time-out that can be held: the time in `ex.wait` does not count against a plugin. */
export interface HookClock {
  hold(): void;
  go(): void;
  stop(): void;
}

/** The longest time that a timer takes; a longer one would fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** A clock of `ms` milliseconds of running time, monotonic. 0 never expires. */
export function startClock(ms: number, expired: () => void): HookClock {
  if (ms <= 0) return { hold() {}, go() {}, stop() {} };
  let left = Math.min(ms, MAX_TIMER_MS);
  let held = false;
  let stopped = false;
  let since = performance.now();
  let timer = setTimeout(expired, left);
  return {
    hold() {
      if (held || stopped) return;
      held = true;
      clearTimeout(timer);
      left -= performance.now() - since;
    },
    go() {
      if (!held || stopped) return;
      held = false;
      since = performance.now();
      timer = setTimeout(expired, Math.max(0, left));
    },
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}

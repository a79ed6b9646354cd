import { TokenmanError } from "@tokenman/plugin-sdk";
import type { HookClock } from "./clock.ts";
import type { PluginHandle } from "./plugin-handle.ts";

/** Runs the time of a hook; an exchange pauses it while a plugin is in `ex.wait`. */
export interface ClockOwner {
  readonly id: string;
  enterClock(clock: HookClock): void;
  leaveClock(clock: HookClock): void;
}

export interface Contained {
  readonly plugin: PluginHandle;
  readonly hook: string;
  readonly owner: ClockOwner;
  readonly makeClock: (ms: number, expired: () => void) => HookClock;
}

/**
 * Calls a plugin's function so that whatever it does ends in exactly one call of `done`: it may return, throw, reject,
 * never settle, or settle twice. What comes after its time-out is ignored. A synchronous endless loop cannot be ended.
 *
 * `done` gets the value, or the failure as a TM_PLUGIN_FAILED, TM_PLUGIN_TIMEOUT or TM_PLUGIN_RESULT with its cause. A
 * synchronous function costs no promise and no microtask.
 */
export function contain<T>(
  context: Contained,
  call: () => unknown,
  check: (value: unknown) => T,
  done: (failure: TokenmanError | undefined, value: T | undefined) => void,
): void {
  let value: unknown;
  try {
    value = call();
    if (!isThenable(value)) {
      const checked = check(value);
      context.plugin.succeeded();
      value = checked;
    }
  } catch (cause) {
    done(failure(context, cause), undefined);
    return;
  }
  // Outside the try: an error thrown by what follows in the chain is not this plugin's.
  if (isThenable(value)) settle(context, value, check, done);
  else done(undefined, value as T);
}

function settle<T>(
  context: Contained,
  promise: PromiseLike<unknown>,
  check: (value: unknown) => T,
  done: (failure: TokenmanError | undefined, value: T | undefined) => void,
): void {
  const { plugin, hook, owner } = context;
  let open = true;
  const finish = (failed: TokenmanError | undefined, value: T | undefined): void => {
    if (!open) return;
    open = false;
    clock.stop();
    owner.leaveClock(clock);
    done(failed, value);
  };
  const clock = context.makeClock(plugin.hookMs, () => {
    const error = new TokenmanError(
      "TM_PLUGIN_TIMEOUT",
      `${plugin.name} did not end its ${hook} hook in ${plugin.hookMs} ms`,
      {
        plugin: plugin.name,
        hook,
      },
    );
    plugin.failed(hook, error, owner.id);
    finish(error, undefined);
  });
  owner.enterClock(clock);
  const resolved = (value: unknown): void => {
    if (!open) return;
    let checked: T;
    try {
      checked = check(value);
      plugin.succeeded();
    } catch (cause) {
      finish(failure(context, cause), undefined);
      return;
    }
    finish(undefined, checked);
  };
  const rejected = (cause: unknown): void => {
    if (open) finish(failure(context, cause), undefined);
    else plugin.log.debug({ plugin: plugin.name, hook, err: cause }, "a hook that had timed out rejected");
  };
  try {
    promise.then(resolved, rejected);
  } catch (cause) {
    // A foreign thenable may throw from `then` itself.
    rejected(cause);
  }
}

function failure({ plugin, hook, owner }: Contained, cause: unknown): TokenmanError {
  plugin.failed(hook, cause, owner.id);
  if (cause instanceof TokenmanError && cause.code === "TM_PLUGIN_RESULT") return cause;
  const said = cause instanceof Error ? cause.message : String(cause);
  return new TokenmanError("TM_PLUGIN_FAILED", `${plugin.name} failed in its ${hook} hook: ${said}`, {
    cause,
    plugin: plugin.name,
    hook,
  });
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (
    typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function"
  );
}

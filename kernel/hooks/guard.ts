import { TokenmanError } from "@tokenman/plugin-sdk";
import { sayCause } from "./plugin-handle.ts";
import { type CallOwner, TapCall, type Tapped, traceNext } from "./tap-call.ts";

/**
 * Calls a plugin's function so that whatever it does ends in exactly one call of `done`: it may return, throw, reject,
 * never settle, or settle twice. What comes after its time-out is ignored. A synchronous endless loop cannot be ended.
 *
 * `check` turns what it returned into what `done` gets, and throws TM_PLUGIN_RESULT where it is nonsense; all that can
 * fail because of the value belongs there. `done` gets that, or the failure as a TM_PLUGIN_FAILED, TM_PLUGIN_TIMEOUT or
 * TM_PLUGIN_RESULT with its cause, and must not throw. A synchronous function costs no promise and no microtask.
 */
export function contain<T>(
  target: Tapped<unknown>,
  owner: CallOwner,
  invoke: () => unknown,
  check: (value: unknown) => T,
  done: (failure: TokenmanError | undefined, value: T | undefined) => void,
): void {
  const call = new TapCall(target, owner.id);
  let promise: Promise<unknown> | undefined;
  let checked: T | undefined;
  try {
    const value = call.run(target, invoke);
    promise = promiseOf(value);
    if (promise === undefined) {
      checked = check(value);
      call.end();
    }
  } catch (cause) {
    call.end();
    done(failure(call, cause), undefined);
    return;
  }
  traceNext(target, promise !== undefined);
  // Outside the try: an error thrown by what follows in the chain is not this plugin's.
  if (promise === undefined) {
    target.plugin.succeeded(target.hook);
    done(undefined, checked);
    return;
  }
  settle(call, owner, promise, check, done);
}

function settle<T>(
  call: TapCall,
  owner: CallOwner,
  promise: Promise<unknown>,
  check: (value: unknown) => T,
  done: (failure: TokenmanError | undefined, value: T | undefined) => void,
): void {
  const { plugin, hook } = call;
  const finish = (failed: TokenmanError | undefined, value: T | undefined): void => {
    call.end();
    owner.leave(call);
    done(failed, value);
  };
  owner.enter(call);
  const expired = (): void => {
    const error = new TokenmanError(
      "TM_PLUGIN_TIMEOUT",
      `${plugin.name} did not end its ${hook} hook in ${plugin.hookMs} ms`,
      { plugin: plugin.name, hook },
    );
    plugin.failed(hook, error, owner.id);
    finish(error, undefined);
  };
  const ended = (value: unknown): void => {
    if (call.over) return;
    let checked: T;
    try {
      checked = check(value);
    } catch (cause) {
      finish(failure(call, cause), undefined);
      return;
    }
    plugin.succeeded(hook);
    finish(undefined, checked);
  };
  call.limit(plugin.hookMs, expired, () => ended(undefined));
  // Not promise.then: a plugin's promise may bring a `then` of its own.
  Promise.prototype.then.call(promise, ended, (cause: unknown) => {
    if (!call.over) finish(failure(call, cause), undefined);
    else plugin.log.debug({ plugin: plugin.name, hook, err: cause }, "a hook that was given up failed later");
  });
}

function failure({ plugin, hook, exchangeId }: TapCall, cause: unknown): TokenmanError {
  plugin.failed(hook, cause, exchangeId);
  if (cause instanceof TokenmanError && cause.code === "TM_PLUGIN_RESULT") return cause;
  return new TokenmanError(
    "TM_PLUGIN_FAILED",
    `${plugin.name} failed in its ${hook} hook: ${sayCause(cause)}`,
    { cause, plugin: plugin.name, hook },
  );
}

/**
 * Undefined for a plain value. A foreign thenable may throw from `then` or its getter, settle twice, or with another
 * thenable: a promise of our own takes it in, with the language's own rules. A promise is taken as `await` takes it.
 */
function promiseOf(value: unknown): Promise<unknown> | undefined {
  if (value === null || (typeof value !== "object" && typeof value !== "function")) return undefined;
  if (value instanceof Promise) return Promise.resolve(value);
  const { then } = value as { readonly then?: unknown };
  if (typeof then !== "function") return undefined;
  return new Promise((resolve, reject) => then.call(value, resolve, reject));
}

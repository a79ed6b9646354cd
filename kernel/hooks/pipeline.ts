import type { Attempt, Exchange, HookObserver, Hooks, Lifecycle, Outcome } from "@tokenman/plugin-sdk";
import { AsyncSeriesBailHook, AsyncSeriesHook, AsyncSeriesWaterfallHook, HookMap } from "tapable";
import type { AttemptState } from "../attempt.ts";
import type { ExchangeState } from "../exchange.ts";
import { KernelReply } from "../reply/reply.ts";
import { contain } from "./guard.ts";
import { checkAttempt, checkCandidates, checkHead, checkReply, checkVerdict } from "./hook-result.ts";
import type { PluginHandle } from "./plugin-handle.ts";
import { type Tapped, tapped } from "./tap-call.ts";

type TapOf<H> = H extends { tap(fn: infer F): void } ? F : never;
export type RequestTap = TapOf<Hooks["request"]>;
export type BeforeUpstreamTap = TapOf<Hooks["beforeUpstream"]>;
export type ResponseTap = TapOf<Hooks["response"]>;

/** What one plugin tapped for one effective config. */
export interface PluginTaps {
  readonly plugin: PluginHandle;
  readonly request: readonly RequestTap[];
  readonly beforeUpstream: readonly BeforeUpstreamTap[];
  readonly response: readonly ResponseTap[];
  readonly lifecycle: { readonly [K in keyof Lifecycle]?: readonly Lifecycle[K][] };
}

/** The compiled hooks of one effective config. A call gives its result at once where every tap was synchronous. */
export interface Pipeline {
  readonly plugins: readonly PluginHandle[];
  request(exchange: ExchangeState): MaybePromise<KernelReply | undefined>;
  beforeUpstream(exchange: ExchangeState, attempt: AttemptState): MaybePromise<VerdictOf | undefined>;
  response(reply: KernelReply, exchange: ExchangeState): MaybePromise<KernelReply>;
  started(exchange: Exchange): void;
  attemptEnded(exchange: Exchange, attempt: Attempt): void;
  settled(exchange: Exchange, outcome: Outcome): MaybePromise<void>;
}
export type MaybePromise<T> = T | Promise<T>;
/** What a plugin said before an attempt. */
export type VerdictOf =
  | { readonly by: PluginHandle; readonly skip: string; readonly retryAfterMs?: number }
  | { readonly by: PluginHandle; readonly answer: KernelReply };

type Done<T> = (error: Error | null, value?: T) => void;

/**
 * Builds the hooks from what the plugins tapped, in request order. Tapable is never given `before` or `stage`: the
 * order is settled here. Nothing is built for a hook without taps.
 */
export function compilePipeline(
  taps: readonly PluginTaps[],
  observers: readonly HookObserver[] = [],
): Pipeline {
  const request = new AsyncSeriesBailHook<[ExchangeState], KernelReply>(["exchange"]);
  const beforeUpstream = new AsyncSeriesBailHook<[ExchangeState, AttemptState], VerdictOf>([
    "exchange",
    "attempt",
  ]);
  const response = new AsyncSeriesWaterfallHook<[KernelReply, ExchangeState]>(["reply", "exchange"]);
  const lifecycle = new HookMap(() => new AsyncSeriesHook<[unknown, unknown]>(["subject", "detail"]));
  const observe = observers.length === 0 ? undefined : observers;

  taps.forEach(({ plugin, ...own }, index) => {
    for (const fn of own.request) {
      const tap = tapped(plugin, "request", fn);
      request.tapAsync(plugin.name, (exchange, done) => tapRequest(tap, index, exchange, observe, done));
    }
    for (const fn of own.beforeUpstream) {
      const tap = tapped(plugin, "beforeUpstream", fn);
      beforeUpstream.tapAsync(plugin.name, (exchange, attempt, done) =>
        tapBeforeUpstream(tap, exchange, attempt, observe, done),
      );
    }
    for (const name of ["start", "attemptEnd", "settled"] as const) {
      for (const fn of own.lifecycle[name] ?? []) {
        const tap = tapped(plugin, name, fn as LifecycleTap);
        lifecycle
          .for(name)
          .tapAsync(plugin.name, (subject, detail, done) =>
            tapLifecycle(tap, subject as ExchangeState, detail, done),
          );
      }
    }
  });
  for (let index = taps.length - 1; index >= 0; index--) {
    const { plugin, response: own } = taps[index]!;
    for (const fn of own) {
      const tap = tapped(plugin, "response", fn);
      response.tapAsync(plugin.name, (reply, exchange, done) =>
        tapResponse(tap, index, reply, exchange, observe, done),
      );
    }
  }

  const start = lifecycle.get("start");
  const attemptEnd = lifecycle.get("attemptEnd");
  const settled = lifecycle.get("settled");
  return Object.freeze({
    plugins: taps.map((entry) => entry.plugin),
    request: request.isUsed()
      ? (exchange: ExchangeState) => {
          if (observe !== undefined) exchange.tappedAt = performance.now();
          return now<KernelReply | undefined>((done) => request.callAsync(exchange, done));
        }
      : nothing,
    beforeUpstream: beforeUpstream.isUsed()
      ? (exchange: ExchangeState, attempt: AttemptState) => {
          if (observe !== undefined) attempt.tappedAt = performance.now();
          return now<VerdictOf | undefined>((done) => beforeUpstream.callAsync(exchange, attempt, done));
        }
      : nothing,
    response: response.isUsed()
      ? (reply: KernelReply, exchange: ExchangeState) => {
          if (observe !== undefined) exchange.tappedAt = performance.now();
          return now<KernelReply>((done) => response.callAsync(reply, exchange, done as Done<KernelReply>));
        }
      : same,
    started:
      start === undefined ? nothing : (exchange: Exchange) => start.callAsync(exchange, undefined, ignore),
    attemptEnded:
      attemptEnd === undefined
        ? nothing
        : (exchange: Exchange, attempt: Attempt) => attemptEnd.callAsync(exchange, attempt, ignore),
    settled:
      settled === undefined
        ? nothing
        : (exchange: Exchange, outcome: Outcome) =>
            now<void>((done) => settled.callAsync(exchange, outcome, done as Done<void>)),
  });
}

function nothing(): undefined {}
function ignore(): void {}
function same(reply: KernelReply): KernelReply {
  return reply;
}

/** Turns a callback into a value, where it came at once, or a promise of it. */
function now<T>(call: (done: Done<T>) => void): MaybePromise<T> {
  let outcome: { error: Error | null; value: T | undefined } | undefined;
  let resolve: ((value: T) => void) | undefined;
  let reject: ((error: Error) => void) | undefined;
  call((error, value) => {
    if (resolve === undefined) outcome ??= { error, value };
    else if (error) reject!(error);
    else resolve(value as T);
  });
  if (outcome !== undefined) {
    if (outcome.error) throw outcome.error;
    return outcome.value as T;
  }
  return new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
}

/** Something that hooks run for, one tap after the other. */
interface Timed {
  /** When the tap before ended, or the run began, by the monotonic clock. */
  tappedAt: number;
}

/**
 * Tells how long a tap took: since the one before it ended. The clock is read once a tap, and what the kernel and the
 * observers do between two of them, which is less than a microsecond, counts for the later one.
 */
function told(
  observers: readonly HookObserver[],
  { plugin, hook }: Tapped<unknown>,
  exchange: ExchangeState,
  run: Timed,
): void {
  const now = performance.now();
  const durationMs = now - run.tappedAt;
  run.tappedAt = now;
  for (const observer of observers)
    observer.tapped(plugin.name, hook as "request" | "beforeUpstream" | "response", exchange, durationMs);
}

function tapRequest(
  tap: Tapped<RequestTap>,
  index: number,
  exchange: ExchangeState,
  observers: readonly HookObserver[] | undefined,
  done: Done<KernelReply>,
): void {
  const { plugin, fn } = tap;
  if (plugin.quarantined !== undefined) {
    if (plugin.onError === "open") done(null);
    else {
      exchange.answeredAt = index;
      done(null, quarantinedReply(plugin, exchange));
    }
    return;
  }
  const mark = exchange.mark();
  const { candidates, ruledOut } = exchange;
  contain(
    tap,
    exchange,
    () => fn(exchange),
    (value) => {
      if (exchange.candidates !== candidates) checkCandidates(tap, exchange.candidates);
      return checkReply(tap, value, exchange);
    },
    (failure, value) => {
      if (observers !== undefined) told(observers, tap, exchange, exchange);
      if (failure !== undefined) {
        exchange.rollback(mark);
        exchange.candidates = candidates;
        exchange.ruledOut = ruledOut;
        if (plugin.onError === "open") done(null);
        else {
          exchange.answeredAt = index;
          done(null, KernelReply.refusal(exchange, { code: failure.code, message: PUBLIC_FAILURE }));
        }
      } else if (value === undefined) done(null);
      else {
        exchange.answeredAt = index;
        done(null, value);
      }
    },
  );
}

function tapBeforeUpstream(
  tap: Tapped<BeforeUpstreamTap>,
  exchange: ExchangeState,
  attempt: AttemptState,
  observers: readonly HookObserver[] | undefined,
  done: Done<VerdictOf>,
): void {
  const { plugin, fn } = tap;
  // Called off while another plugin was asked: nobody has to prepare for what will not be sent.
  if (attempt.result !== undefined) {
    done(null);
    return;
  }
  if (plugin.quarantined !== undefined) {
    if (plugin.onError === "open") done(null);
    else done(null, { by: plugin, answer: quarantinedReply(plugin, exchange) });
    return;
  }
  const mark = attempt.mark();
  contain(
    tap,
    exchange,
    () => fn(exchange, attempt),
    (value) => {
      checkAttempt(tap, attempt, mark.headers);
      return checkVerdict(tap, value, exchange);
    },
    (failure, value) => {
      if (observers !== undefined) told(observers, tap, exchange, attempt);
      if (failure === undefined) {
        done(null, value);
        return;
      }
      attempt.rollback(mark);
      if (plugin.onError === "open") done(null);
      else {
        const error = { code: failure.code, message: PUBLIC_FAILURE };
        done(null, { by: plugin, answer: KernelReply.refusal(exchange, error) });
      }
    },
  );
}

function tapResponse(
  tap: Tapped<ResponseTap>,
  index: number,
  reply: KernelReply,
  exchange: ExchangeState,
  observers: readonly HookObserver[] | undefined,
  done: Done<KernelReply>,
): void {
  const { plugin, fn } = tap;
  // Only the plugins that the request passed through see the reply, and the one that answered does not.
  if (index >= exchange.answeredAt || plugin === exchange.answeredBy) {
    done(null, reply);
    return;
  }
  if (plugin.quarantined !== undefined) {
    if (plugin.onError === "open") done(null, reply);
    else {
      reply.discard();
      done(null, quarantinedReply(plugin, exchange));
    }
    return;
  }
  const mark = reply.enter(plugin);
  contain(
    tap,
    exchange,
    () => fn(reply, exchange),
    (value) => {
      if (value === reply || value === undefined) {
        checkHead(tap, reply, mark);
        return reply;
      }
      return checkReply(tap, value, exchange) ?? reply;
    },
    (failure, value) => {
      if (observers !== undefined) told(observers, tap, exchange, exchange);
      reply.leave();
      if (failure === undefined) {
        if (value !== reply) reply.discard();
        done(null, value);
      } else if (plugin.onError === "open") {
        reply.rollback(mark);
        done(null, reply);
      } else {
        reply.discard();
        done(null, KernelReply.refusal(exchange, { code: failure.code, message: PUBLIC_FAILURE }));
      }
    },
  );
}

type LifecycleTap = (subject: unknown, detail: unknown) => unknown;
function tapLifecycle(
  tap: Tapped<LifecycleTap>,
  exchange: ExchangeState,
  detail: unknown,
  done: (error?: Error | null) => void,
): void {
  if (tap.plugin.quarantined !== undefined) {
    done(null);
    return;
  }
  contain(
    tap,
    exchange,
    () => tap.fn(exchange, detail),
    () => undefined,
    () => done(null),
  );
}

const PUBLIC_FAILURE = "A plugin that must not fail did; the request was not sent on.";

function quarantinedReply(plugin: PluginHandle, exchange: ExchangeState): KernelReply {
  plugin.log.debug(
    { plugin: plugin.name, exchange: exchange.id },
    "refused: the plugin is quarantined and fails closed",
  );
  return KernelReply.refusal(exchange, { code: "TM_PLUGIN_FAILED", message: PUBLIC_FAILURE });
}

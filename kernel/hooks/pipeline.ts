import type { Attempt, Exchange, HookObserver, Lifecycle, Outcome } from "@tokenman/plugin-sdk";
import { AsyncSeriesBailHook, AsyncSeriesHook, AsyncSeriesWaterfallHook, HookMap } from "tapable";
import type { AttemptState } from "../attempt.ts";
import type { ExchangeState } from "../exchange.ts";
import type { KernelReply } from "../reply/reply.ts";
import type { VerdictOf } from "./hook-result.ts";
import type { PluginHandle } from "./plugin-handle.ts";
import {
  type BeforeUpstreamTap,
  type Done,
  type LifecycleTap,
  type RequestTap,
  type ResponseTap,
  tapBeforeUpstream,
  tapLifecycle,
  tapRequest,
  tapResponse,
} from "./run-tap.ts";
import { tapped } from "./tap-call.ts";

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

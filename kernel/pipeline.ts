import type {
  Attempt,
  Exchange,
  HookObserver,
  Hooks,
  Lifecycle,
  Outcome,
  ReplyInit,
  Verdict,
} from "@tokenman/plugin-sdk";
import { TokenmanError } from "@tokenman/plugin-sdk";
import { AsyncSeriesBailHook, AsyncSeriesHook, AsyncSeriesWaterfallHook, HookMap } from "tapable";
import type { AttemptState } from "./attempt.ts";
import { startClock } from "./clock.ts";
import type { ExchangeState } from "./exchange.ts";
import { type Contained, contain } from "./guard.ts";
import type { PluginHandle } from "./plugin-handle.ts";
import { isReplyInit, KernelReply } from "./reply.ts";

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
/** A verdict with the plugin that gave it. */
export type VerdictOf = Verdict & { readonly by: PluginHandle };

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
      request.tapAsync(plugin.name, (exchange, done) =>
        tapRequest(plugin, index, fn, exchange, timed(observe, plugin, "request", exchange, done)),
      );
    }
    for (const fn of own.beforeUpstream) {
      beforeUpstream.tapAsync(plugin.name, (exchange, attempt, done) =>
        tapBeforeUpstream(
          plugin,
          fn,
          exchange,
          attempt,
          timed(observe, plugin, "beforeUpstream", exchange, done),
        ),
      );
    }
    for (const name of ["start", "attemptEnd", "settled"] as const) {
      for (const fn of own.lifecycle[name] ?? []) {
        lifecycle
          .for(name)
          .tapAsync(plugin.name, (subject, detail, done) =>
            tapLifecycle(plugin, name, fn as LifecycleTap, subject as ExchangeState, detail, done),
          );
      }
    }
  });
  for (let index = taps.length - 1; index >= 0; index--) {
    const { plugin, response: own } = taps[index]!;
    for (const fn of own) {
      response.tapAsync(plugin.name, (reply, exchange, done) =>
        tapResponse(plugin, index, fn, reply, exchange, timed(observe, plugin, "response", exchange, done)),
      );
    }
  }

  const start = lifecycle.get("start");
  const attemptEnd = lifecycle.get("attemptEnd");
  const settled = lifecycle.get("settled");
  return Object.freeze({
    plugins: taps.map((entry) => entry.plugin),
    request: request.isUsed()
      ? (exchange: ExchangeState) => now<KernelReply | undefined>((done) => request.callAsync(exchange, done))
      : nothing,
    beforeUpstream: beforeUpstream.isUsed()
      ? (exchange: ExchangeState, attempt: AttemptState) =>
          now<VerdictOf | undefined>((done) => beforeUpstream.callAsync(exchange, attempt, done))
      : nothing,
    response: response.isUsed()
      ? (reply: KernelReply, exchange: ExchangeState) =>
          now<KernelReply>((done) => response.callAsync(reply, exchange, done as Done<KernelReply>))
      : (reply: KernelReply) => reply,
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

/** Turns a callback into a value, where it came at once, or a promise of it. */
function now<T>(call: (done: Done<T>) => void): MaybePromise<T> {
  let settled = false;
  let outcome: { error: Error | null; value: T | undefined } | undefined;
  let resolve: ((value: T) => void) | undefined;
  let reject: ((error: Error) => void) | undefined;
  call((error, value) => {
    if (settled) return;
    settled = true;
    if (resolve === undefined) outcome = { error: error ?? null, value };
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

function contained(plugin: PluginHandle, hook: string, owner: ExchangeState): Contained {
  return { plugin, hook, owner, makeClock: startClock };
}

function timed<T>(
  observers: readonly HookObserver[] | undefined,
  plugin: PluginHandle,
  hook: "request" | "beforeUpstream" | "response",
  exchange: ExchangeState,
  done: Done<T>,
): Done<T> {
  if (observers === undefined) return done;
  const began = performance.now();
  return (error, value) => {
    const durationMs = performance.now() - began;
    for (const observer of observers) observer.tapped(plugin.name, hook, exchange, durationMs);
    done(error, value);
  };
}

function tapRequest(
  plugin: PluginHandle,
  index: number,
  fn: RequestTap,
  exchange: ExchangeState,
  done: Done<KernelReply>,
): void {
  if (plugin.quarantined !== undefined) {
    if (plugin.onError === "open") done(null);
    else {
      exchange.answeredAt = index;
      done(null, quarantinedReply(plugin, exchange));
    }
    return;
  }
  const mark = exchange.mark();
  contain(
    contained(plugin, "request", exchange),
    () => fn(exchange),
    (value) => checkReply(plugin, "request", value),
    (failure, value) => {
      if (failure !== undefined) {
        exchange.rollback(mark);
        if (plugin.onError === "open") done(null);
        else {
          exchange.answeredAt = index;
          done(null, KernelReply.refusal(exchange, { code: failure.code, message: PUBLIC_FAILURE }));
        }
      } else if (value === undefined) done(null);
      else {
        exchange.answeredAt = index;
        done(null, KernelReply.from(value, exchange, plugin));
      }
    },
  );
}

function tapBeforeUpstream(
  plugin: PluginHandle,
  fn: BeforeUpstreamTap,
  exchange: ExchangeState,
  attempt: AttemptState,
  done: Done<VerdictOf>,
): void {
  if (plugin.quarantined !== undefined) {
    if (plugin.onError === "open") done(null);
    else done(null, { answer: refusalInit(exchange, "TM_PLUGIN_FAILED"), by: plugin });
    return;
  }
  const mark = attempt.mark();
  contain(
    contained(plugin, "beforeUpstream", exchange),
    () => fn(exchange, attempt),
    (value) => checkVerdict(plugin, value),
    (failure, value) => {
      if (failure !== undefined) {
        attempt.rollback(mark);
        if (plugin.onError === "open") done(null);
        else done(null, { answer: refusalInit(exchange, failure.code), by: plugin });
      } else if (value === undefined) done(null);
      else done(null, { ...value, by: plugin });
    },
  );
}

function tapResponse(
  plugin: PluginHandle,
  index: number,
  fn: ResponseTap,
  reply: KernelReply,
  exchange: ExchangeState,
  done: Done<KernelReply>,
): void {
  // Only the plugins that the request passed through see the reply, and the one that answered does not.
  if (index >= exchange.answeredAt) {
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
    contained(plugin, "response", exchange),
    () => fn(reply, exchange),
    (value) => checkReply(plugin, "response", value),
    (failure, value) => {
      reply.leave();
      if (failure !== undefined) {
        if (plugin.onError === "open") {
          reply.rollback(mark);
          done(null, reply);
        } else {
          reply.discard();
          done(null, KernelReply.refusal(exchange, { code: failure.code, message: PUBLIC_FAILURE }));
        }
      } else if (value === undefined || value === reply) done(null, reply);
      else {
        reply.discard();
        done(null, KernelReply.from(value, exchange, plugin));
      }
    },
  );
}

type LifecycleTap = (subject: unknown, detail: unknown) => unknown;
function tapLifecycle(
  plugin: PluginHandle,
  name: string,
  fn: LifecycleTap,
  subject: ExchangeState,
  detail: unknown,
  done: (error?: Error | null) => void,
): void {
  if (plugin.quarantined !== undefined) {
    done(null);
    return;
  }
  contain(
    contained(plugin, name, subject),
    () => fn(subject, detail),
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
function refusalInit(exchange: ExchangeState, code: "TM_PLUGIN_FAILED" | TokenmanError["code"]): ReplyInit {
  return exchange.refuse({ code, message: PUBLIC_FAILURE });
}

function checkReply(plugin: PluginHandle, hook: string, value: unknown): ReplyInit | KernelReply | undefined {
  if (value === undefined || value instanceof KernelReply || isReplyInit(value)) return value;
  throw wrongResult(plugin, hook, "a reply ({ status, headers?, body? }) or undefined", value);
}
function checkVerdict(plugin: PluginHandle, value: unknown): Verdict | undefined {
  if (value === undefined) return undefined;
  if (typeof value === "object" && value !== null) {
    const verdict = value as Record<string, unknown>;
    if (typeof verdict.skip === "string") return { skip: verdict.skip };
    if (isReplyInit(verdict.answer)) return { answer: verdict.answer };
  }
  throw wrongResult(plugin, "beforeUpstream", "{ skip: reason }, { answer: reply } or undefined", value);
}
function wrongResult(plugin: PluginHandle, hook: string, expected: string, value: unknown): TokenmanError {
  const found = value === null ? "null" : Array.isArray(value) ? "an array" : typeof value;
  return new TokenmanError(
    "TM_PLUGIN_RESULT",
    `${plugin.name}'s ${hook} hook returned ${found}; expected ${expected}`,
    {
      plugin: plugin.name,
      hook,
    },
  );
}

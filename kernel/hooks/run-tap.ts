import type { ErrorCode, HookObserver, Hooks } from "@tokenman/plugin-sdk";
import type { AttemptState } from "../attempt.ts";
import type { ExchangeState } from "../exchange.ts";
import { KernelReply } from "../reply/reply.ts";
import { contain } from "./guard.ts";
import {
  checkAttempt,
  checkCandidates,
  checkHead,
  checkReply,
  checkVerdict,
  type VerdictOf,
} from "./hook-result.ts";
import type { PluginHandle } from "./plugin-handle.ts";
import type { Tapped } from "./tap-call.ts";

type TapOf<H> = H extends { tap(fn: infer F): void } ? F : never;
export type RequestTap = TapOf<Hooks["request"]>;
export type BeforeUpstreamTap = TapOf<Hooks["beforeUpstream"]>;
export type ResponseTap = TapOf<Hooks["response"]>;

/** Goes on in the chain. */
export type Done<T> = (error: Error | null, value?: T) => void;

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

export function tapRequest(
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
  const mark = exchange.content.mark();
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
        exchange.content.rollback(mark);
        exchange.candidates = candidates;
        exchange.ruledOut = ruledOut;
        if (plugin.onError === "open") done(null);
        else {
          exchange.answeredAt = index;
          done(null, failedReply(exchange, failure.code));
        }
      } else if (value === undefined) done(null);
      else {
        exchange.answeredAt = index;
        done(null, value);
      }
    },
  );
}

export function tapBeforeUpstream(
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
      else done(null, { by: plugin, answer: failedReply(exchange, failure.code) });
    },
  );
}

export function tapResponse(
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
        done(null, failedReply(exchange, failure.code));
      }
    },
  );
}

export type LifecycleTap = (subject: unknown, detail: unknown) => unknown;

export function tapLifecycle(
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

/** What a client hears of a plugin that failed, and whose policy is "closed". */
function failedReply(exchange: ExchangeState, code: ErrorCode): KernelReply {
  const message = "A plugin that must not fail did; the request was not sent on.";
  return KernelReply.refusal(exchange, { code, message });
}
function quarantinedReply(plugin: PluginHandle, exchange: ExchangeState): KernelReply {
  plugin.log.debug(
    { plugin: plugin.name, exchange: exchange.id },
    "refused: the plugin is quarantined and fails closed",
  );
  return failedReply(exchange, "TM_PLUGIN_FAILED");
}

import { type Exchange, type Slot, slot } from "./exchange.ts";
import { type ServiceToken, service } from "./service.ts";

/** How far a compressor goes with a request; see {@link mayTouch}. */
export type Touch =
  /** It decides about segments that are new to it, and repeats what it decided before. */
  | "new"
  /**
   * It repeats what it decided before, so that the prefix stays as it is, and decides for every new segment that it is
   * left alone, for good. A hint, which changes no prefix, is not given any more.
   */
  | "known"
  /** It leaves the whole request as it is. */
  | "none";

/**
 * What is done about a request: a `rewrite` changes what the model reads; a `hint` (a cache breakpoint, a cache key) only
 * what it costs, which the provider's usage tells exactly, so that no holdout is needed to measure it.
 */
export type CompressionKind = "rewrite" | "hint";

/** Says how far compressors may go: some sessions are held out to compare with, in others one has cost more than it saved. */
export interface SavingsGuard {
  /** Synchronous and cheap. `plugin` is the asking plugin's name. Ask {@link mayTouch} in its place. */
  touch(exchange: Exchange, plugin: string, kind: CompressionKind): Touch;
}
export const SavingsGuard: ServiceToken<SavingsGuard> = service<SavingsGuard>("SavingsGuard");

/**
 * How far the plugin named `plugin` may go with a request. Every compressor asks before it changes anything, once for
 * each exchange, and keeps to it. A client's `X-Tokenman-NoCompress` and a subscription's traffic mean "none", whether or
 * not there is a guard (need it as `optional(SavingsGuard)`).
 */
export function mayTouch(
  guard: SavingsGuard | undefined,
  exchange: Exchange,
  plugin: string,
  kind: CompressionKind = "rewrite",
): Touch {
  if (exchange.noCompress || exchange.subscription) return "none";
  return guard?.touch(exchange, plugin, kind) ?? "new";
}

/** What a compressor did to a request, in tokens as the provider would count them. Negative: the request is longer. */
export interface Rewrite {
  readonly plugin: string;
  /** Saved in what this request is the first of its session to carry; what the plugin put in, such as a summary, is negative. */
  readonly newTokens: number;
  /** Saved in what earlier requests of the session had carried too, in full (before a cut, say) or as short as now. */
  readonly knownTokens: number;
  /**
   * Set where the request, because of this plugin, does not begin with what the session sent the turn before: a cut of
   * the history, say. What the provider's cache loses by it counts against the plugin.
   */
  readonly breaksPrefix?: boolean;
  /** What it spent on its own to do so, such as a call that made a summary; nano-dollars. */
  readonly spentNanoUsd?: number;
}

const Rewrites: Slot<Rewrite[]> = slot<Rewrite[]>("savings.rewrites");

/**
 * Notes what a compressor did, at each request that is the shorter for it: the saving is then priced by what the provider
 * billed, and recorded under the plugin's name. Before the exchange is settled. In the place of `addSaving`.
 */
export function addRewrite(exchange: Exchange, rewrite: Rewrite): void {
  const found = exchange.get(Rewrites);
  if (found === undefined) exchange.set(Rewrites, [rewrite]);
  else found.push(rewrite);
}

/** What compressors did to a request so far. */
export function rewritesOf(exchange: Exchange): readonly Rewrite[] {
  return exchange.get(Rewrites) ?? [];
}

const Hinted: Slot<string> = slot<string>("savings.hinted");

/**
 * Notes that the provider's prompt cache works for this request because of `plugin`, which gave the hint for it: what the
 * cache saves, or costs, is then recorded under its name, and not as the client's own doing.
 */
export function claimProviderCache(exchange: Exchange, plugin: string): void {
  exchange.set(Hinted, plugin);
}

/** The plugin that gave the cache hints of a request; undefined where the client, or the provider by itself, did. */
export function providerCacheClaim(exchange: Exchange): string | undefined {
  return exchange.get(Hinted);
}

import type { Provider, ProviderConnection } from "@tokenman/plugin-sdk";
import { connectionBudget } from "../descriptors.ts";
import { type Lookup, makeConnector } from "./connector.ts";
import { Budget, Origin } from "./origin.ts";
import { ProxyEnvironment, parseProxy, type UpstreamProxy } from "./proxy.ts";
import { type Target, targetOf } from "./target.ts";

export interface ConnectionsOptions {
  /** Where HTTPS_PROXY and its like are looked for. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** In the place of the system's name look-up. */
  readonly lookup?: Lookup;
  /** Sockets at once as far as idle ones can be spared. Default: what the process's file descriptors allow. */
  readonly maxSockets?: number;
}

/** The connections to all origins. They outlive reloads. */
export class Connections {
  readonly #origins = new Map<string, Origin>();
  readonly #targets = new WeakMap<Provider, Target>();
  readonly #budget: Budget;
  readonly #environment: ProxyEnvironment;
  readonly #lookup: Lookup | undefined;

  /** Throws TM_CONFIG_INVALID for a proxy variable that names no proxy. */
  constructor({ env = {}, lookup, maxSockets = connectionBudget() }: ConnectionsOptions = {}) {
    this.#budget = new Budget(maxSockets, this.#origins);
    this.#environment = new ProxyEnvironment(env);
    this.#lookup = lookup;
  }

  /** Where a provider's requests go, worked out once. Throws TM_NO_PROVIDER for one that has no address. */
  to(provider: Provider, streamIdleMs: number): Target {
    let target = this.#targets.get(provider);
    if (target === undefined) {
      target = targetOf(provider, streamIdleMs, (key, url) => this.#origin(provider, key, url));
      this.#targets.set(provider, target);
    }
    return target;
  }
  /** Closes what none of a new generation's providers uses; requests in flight end first. */
  keepOnly(providers: readonly Provider[], streamIdleMs: number): void {
    const kept = new Set<Origin>();
    for (const provider of providers) {
      if (provider.apiBase === undefined) continue;
      try {
        kept.add(this.to(provider, streamIdleMs).origin);
      } catch {
        // A plugin's provider without a proper address: its requests say so.
      }
    }
    for (const [key, origin] of this.#origins) {
      if (kept.has(origin)) continue;
      origin.close();
      this.#origins.delete(key);
    }
  }
  close(): void {
    this.keepOnly([], 0);
  }

  /** Providers of equal address and equal options share their connections, across reloads too. */
  #origin(provider: Provider, key: string, url: URL): Origin {
    let found = this.#origins.get(key);
    if (found === undefined) {
      const connection = provider.connection ?? {};
      const proxy = this.#proxyFor(url, provider.name, connection.proxy);
      const connect = makeConnector({
        connectMs: provider.timeouts.connectMs,
        proxy,
        trust: connection,
        lookup: this.#lookup,
      });
      found = new Origin({ url: url.origin, connect, proxy, connection }, this.#budget);
      this.#origins.set(key, found);
    }
    return found;
  }
  #proxyFor(url: URL, provider: string, chosen: ProviderConnection["proxy"]): UpstreamProxy | undefined {
    if (chosen === undefined) return this.#environment.proxyFor(url);
    return chosen === "none" ? undefined : parseProxy(chosen.reveal(), `providers.${provider}.proxy`);
  }
}

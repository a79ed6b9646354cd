import type { Exchange, Outcome } from "../src/exchange.ts";
import type { RawHeaders } from "../src/headers.ts";
import type { Logger } from "../src/log.ts";
import type { HostStatus, Plugin, ReloadEvent } from "../src/plugin.ts";

/**
 * What runs plugins for the test kit. The SDK itself knows no kernel: the published package brings one along and loads
 * it at first use, TokenMan's own tests install theirs.
 */
export interface TestHost {
  /** TokenMan's version. */
  readonly version: string;
  /** Starts a kernel with both of its ports. Rejects with TokenmanErrors, and has then left nothing open. */
  start(options: HostOptions): Promise<HostedKernel>;
  /** Sets the given plugins up, with the vendors' dialects and nothing else. Rejects as `start` does. */
  load(options: HostOptions): Promise<HostedPlugins>;
}

export interface HostOptions {
  /** Found by the kernel beside its own ones, and first in the default order. */
  readonly plugins: readonly Plugin[];
  /** Those of TokenMan's default plugins that are not loaded. */
  readonly without: readonly string[];
  readonly configFile: string;
  readonly home: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly pluginsFlag: string | undefined;
  readonly log: Logger;
}

export interface HostedKernel {
  readonly proxyAddress: string;
  readonly dashboardAddress: string;
  reload(reason: string): Promise<ReloadEvent>;
  status(): HostStatus;
  /** What `tokenman plugins --explain` prints. */
  explain(project?: string): string;
  shutdown(options: { readonly drainMs: number; readonly reason: string }): Promise<void>;
}

export interface HostedPlugins {
  /**
   * Takes a request through all hooks and the attempts between them, and settles it. `began` is given the exchange
   * before the first hook. Never rejects for a plugin's failure.
   */
  send(request: HostedRequest, began: (exchange: Exchange) => void): Promise<HostedResult>;
  status(): HostStatus;
  reload: HostedKernel["reload"];
  dispose(): Promise<void>;
}

export interface HostedRequest {
  readonly method: string;
  readonly target: string;
  readonly headers: RawHeaders;
  readonly body: Buffer;
  readonly project: string | undefined;
}

export interface HostedResult {
  readonly exchange: Exchange;
  readonly outcome: Outcome;
  readonly reply: CollectedReply;
}

/** A reply as the client gets it. */
export interface CollectedReply {
  readonly status: number;
  readonly headers: RawHeaders;
  readonly body: Buffer;
  /** False where it broke off: a client's connection would have been destroyed. */
  readonly complete: boolean;
  readonly origin: "provider" | "plugin" | "kernel";
  /** The plugin that answered, where one did. */
  readonly plugin: string | undefined;
}

let installed: TestHost | undefined;

/** Makes the test kit run its kernels on `host`. The last one installed counts. */
export function installHost(host: TestHost): void {
  installed = host;
}

/** Throws where none was installed. */
export function currentHost(): TestHost {
  if (installed === undefined) throw new Error("the test kit has no host: call installHost(host) first");
  return installed;
}

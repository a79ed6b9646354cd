import type { Logger } from "../src/log.ts";
import type { HostStatus, Plugin, ReloadEvent } from "../src/plugin.ts";

/**
 * What runs kernels for the test kit. The SDK itself knows no kernel: the published package brings a bundled one along
 * and finds it by itself, TokenMan's own tests install theirs.
 */
export interface TestHost {
  /** TokenMan's version. */
  readonly version: string;
  /** Starts a kernel. Rejects with TokenmanErrors, and has then left nothing open. */
  start(options: HostOptions): Promise<HostedKernel>;
}

export interface HostOptions {
  /** Found by the kernel beside the first-party ones, and first in the default order. */
  readonly plugins: readonly Plugin[];
  /** First-party plugins that are not loaded by default although TokenMan does. */
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

let installed: TestHost | undefined;

/** Makes the test kit run its kernels on `host`. The last one installed counts. */
export function installHost(host: TestHost): void {
  installed = host;
}

export async function currentHost(): Promise<TestHost> {
  if (installed === undefined) {
    throw new Error("the test kit has no host: build the package, or call installHost(host) first");
  }
  return installed;
}
